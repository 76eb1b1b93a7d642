"""Turn records into what a person sees: figures, tables, and one self-contained HTML file.

Nothing is run here.
"""
