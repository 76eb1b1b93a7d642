"""Draw the verdict from the evidence, with reasons."""
