"""What a catalog alone can teach: pairs of its own texts, queries written for them, and known items to judge by."""
