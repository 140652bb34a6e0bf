"""What a large log costs: seconds and memory of extraction, preparation, weighing and validation, by its size."""
