"""One paper object a file, as frozen data: what to run, what the source reports, and what would count as the same."""
