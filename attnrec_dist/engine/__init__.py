"""Training: the loop, the strategy that wraps the model, the optimizer, checkpoints, stop requests and what is logged."""
