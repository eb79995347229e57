"""The stage of alignment."""
