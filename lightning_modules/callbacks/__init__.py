"""Callbacks of training: dev validation, which stops it and keeps weights; negatives mined anew; progress."""
