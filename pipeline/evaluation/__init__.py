"""How good a reward model is: attribute weights, benchmarks, sections, leaderboard."""
