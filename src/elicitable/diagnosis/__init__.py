"""Evidence in, verdict out, with reasons."""
