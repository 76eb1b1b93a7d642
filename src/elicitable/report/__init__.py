"""Reads records, never runs anything: figures, tables, one self-contained HTML file."""
