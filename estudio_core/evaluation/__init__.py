"""Is the candidate better? Metrics, intervals, the gate and the report."""
