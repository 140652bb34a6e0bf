"""From loaded items and sessions to training data."""
