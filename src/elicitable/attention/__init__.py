"""Tensors in, tensors out; knows no model: the exact split, its float64 reference, bias subspace and drift."""
