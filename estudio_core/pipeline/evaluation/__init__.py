"""What `evaluate` and `publish_model` rank, with which questions, and how it is told."""
