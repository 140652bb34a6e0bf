"""Callbacks of training: dev validation with early stopping and best weights, progress."""
