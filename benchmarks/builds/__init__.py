"""A large build through the product's own steps: bounded memory, kills on the way, an even rate, filtered searches."""
