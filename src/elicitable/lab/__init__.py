"""Run the paper's experiments as jobs, on one machine or on many, and say what came of them."""
