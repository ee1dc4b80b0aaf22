"""Tensor operations that models and losses are built from: packed rows, attention, the item table, its loss, top-k."""
