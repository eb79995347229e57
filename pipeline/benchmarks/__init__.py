"""Benchmarks of reward models: their forms, where they come from, and what makes one figure of their scores."""
