"""The one loop for every method, its schedule, and evaluation."""
