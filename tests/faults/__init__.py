"""Faults for real: killed commands, altered files, hostile input. ``python -m tests.faults`` counts their ends."""
