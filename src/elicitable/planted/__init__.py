"""Tasks and models of which it is known by construction whether a context can elicit the task."""
