"""How far one scan of a vector index goes."""

MAX_SCAN_TUPLES = 40_000
"""Rows that one index scan looks at before the rest is searched exactly. Fixed, so that all pages see one order."""
SCAN_MEMORY_MULTIPLIER = 16
"""Of work_mem: room for what an iterative scan keeps (16 x 4 MB by default)."""
