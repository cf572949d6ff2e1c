"""Matching queries to ground truth, and the losses. Nothing here builds a network."""
