"""Engines that answer requests, and the store of what is finished. Used by every stage that asks a language model."""
