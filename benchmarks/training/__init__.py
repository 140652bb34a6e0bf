"""How fast training goes, against sentence-transformers' trainer and a loop over sessions: `make bench-training`."""
