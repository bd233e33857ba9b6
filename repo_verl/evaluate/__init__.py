"""Evaluation of checkpoints: metrics with intervals, and comparisons of runs."""
