"""Measurements against what people would use instead: one command each, results under `benchmarks/results/`."""
