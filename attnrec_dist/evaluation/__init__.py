"""How good a model is: ranks, metrics, baselines, paired comparison, and the table that tells it."""
