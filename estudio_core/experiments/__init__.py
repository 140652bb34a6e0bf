"""Parameters, runs and registered versions of fine-tuning, and the search for good parameters."""
