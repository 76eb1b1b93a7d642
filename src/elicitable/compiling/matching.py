def fit_short_prefix(*a, **k): raise NotImplementedError
