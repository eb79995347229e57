"""Annotation desks: where tasks go and ratings come from."""
