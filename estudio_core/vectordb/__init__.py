"""Collections in pgvector, search over them, and the releases that switch between them."""
