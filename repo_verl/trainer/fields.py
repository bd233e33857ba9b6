"""Names of what RePO adds to the rows of an update, and of what the worker's loss reports."""

ORIGIN = "repo_origin"
"""(B,) int64 field: which kind of row this is."""

WEIGHT = "repo_weight"
"""(B,) float64 field: w_i of :mod:`repo_verl.losses`; 0 for fresh and padding rows."""

FRESH_SCALE = "repo_fresh_scale"
"""(B,) float64 field: factor of the fresh term, equal for all rows of a mini-batch."""

FRESH_TOKENS = "repo_fresh_tokens"
"""(B,) int64 field: fresh tokens that count in the row's mini-batch on all ranks, those of pruned rows included."""

FRESH, REPLAYED, PADDING = 0, 1, 2

ROW_FIELDS = (ORIGIN, WEIGHT, FRESH_SCALE, FRESH_TOKENS)

REPORT = "repo/"
"""Prefix of the worker's metrics; the driver turns them into those of :mod:`repo_verl.metrics`."""
