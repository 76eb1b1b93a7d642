"""Load a model, run a context into a PrefixKV, and put it before the content: the one room that knows transformers."""
