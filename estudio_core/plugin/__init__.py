"""Search plugins: the contract, the factory, and how they are found."""
