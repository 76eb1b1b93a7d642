"""One way to adapt a file. The contract is in base.py, the one list in catalog.py."""
