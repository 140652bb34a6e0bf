"""Experiments between two rankings, with simulated users whose preferences are known."""
