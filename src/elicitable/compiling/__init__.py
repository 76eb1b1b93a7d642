"""Turn a context into something that needs none: a change of weights, or fewer keys; and say what was lost."""
