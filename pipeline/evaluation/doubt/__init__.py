"""How far a benchmark's figure can be trusted."""
