"""The same numbers, sooner: everything that is there for speed alone, and what depends on the processor."""
