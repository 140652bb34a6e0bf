"""How well models rank that learned from the same simulated clicks, at the same budget of encoded tokens."""
