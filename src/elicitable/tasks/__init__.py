"""Tasks: what to read and what to write, with training items, held-out splits and an identity."""
