"""Run one trial, keep its record, run many of them."""
