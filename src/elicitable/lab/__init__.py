"""The laboratory: the paper's experiments as jobs, who runs them, and what came of them."""
