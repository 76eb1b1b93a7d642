"""One paper object a file, as frozen data: what to run and what the source reports."""
