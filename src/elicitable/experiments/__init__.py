"""State the paper's claims as frozen data, one file per paper object.

Each says what to run, what the source reports, and what would count as the same.
"""
