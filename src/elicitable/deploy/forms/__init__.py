"""The forms that a winner is exported to: one per file, each with what it needs, what it writes, and its self-test."""
