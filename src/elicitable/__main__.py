"""``python -m elicitable`` is the command ``elicitable``."""

from elicitable.cli import main

if __name__ == "__main__":
    main()
