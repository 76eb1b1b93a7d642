"""Compute what attention does, exactly, from tensors to tensors; no model is known here.

The room holds the exact split, its float64 reference, the subspace of the bias, and the drift.
"""
