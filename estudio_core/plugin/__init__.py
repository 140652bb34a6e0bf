"""Search plugins: what one is, the factory, the tutorial's class, and how they are found."""
