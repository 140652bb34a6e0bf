"""How well attention by position is recovered from logs whose truth is known."""
