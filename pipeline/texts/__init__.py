"""Texts: words, near-duplicates, personal data, overlap with benchmarks."""
