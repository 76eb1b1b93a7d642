"""Define what is asked of a model: what to read and what to write, as training items and held-out splits."""
