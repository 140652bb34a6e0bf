"""Which version shall serve: who asked for it, by which way, and what became of it."""
