"""State the paper's claims, one file per paper object, as frozen data: what to run, what the source reports, what
counts as the same.
"""
