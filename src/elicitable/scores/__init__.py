"""Say what a right answer is worth: one score per file, counted per item, so that any of them gets paired intervals."""
