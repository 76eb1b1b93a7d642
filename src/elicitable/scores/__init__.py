"""Score answers: one score per file, per item, so that any of them gets paired intervals."""
