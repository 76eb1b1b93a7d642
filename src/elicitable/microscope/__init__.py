"""Look at what a context does inside a model, layer by layer and head by head."""
