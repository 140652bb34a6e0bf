"""How what is live does, and how far users have moved away from what it was trained on."""
