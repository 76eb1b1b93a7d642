"""Keep what a run leaves: the store of finished trials, where they were made, and the records that reports read."""
