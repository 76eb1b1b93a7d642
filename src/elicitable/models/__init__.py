"""The only room that knows transformers: load a model, run a context into a PrefixKV, inject it, watch it."""
