"""How fast indexing and search are, against what one would write by hand: `make bench-index`."""
