"""Reward models from ratings: conversations to tokens, training, scoring."""
