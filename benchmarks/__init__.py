"""Comparisons with what people would use instead; each writes a table, a plot and the machine it ran on."""
