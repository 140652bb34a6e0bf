"""A challenger beside the live release: its build without a switch, its experiment, and what a verdict does."""
