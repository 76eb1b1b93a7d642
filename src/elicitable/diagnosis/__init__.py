"""Draw the verdict from the evidence, and give the reasons."""
