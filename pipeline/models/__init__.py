"""Models: checkpoints, conversations as tokens, classifiers and probes, and their scores."""
