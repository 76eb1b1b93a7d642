"""What a person asks for: a verdict on every method, one method tuned, an adapter pruned."""
