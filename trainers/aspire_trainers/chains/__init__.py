"""Sampling answers from a user's own chain."""
