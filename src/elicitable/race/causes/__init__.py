"""Why does a context fall short? Experiments that change one thing each, measured as the arms of a race are."""
