"""What is a right answer worth? One score per file, per item, so that any of them gets paired intervals."""
