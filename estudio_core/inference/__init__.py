"""Text to vectors: one interface, in this process or through a Triton server, always from a repository entry."""
