"""Compute what attention does, exactly, from tensors to tensors: the split, its float64 reference, bias subspace and
drift.
"""
