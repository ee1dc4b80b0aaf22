"""Checkpoints that are whole or absent, and the optimizer's state inside them."""
