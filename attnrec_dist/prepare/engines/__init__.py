"""Where the statements of `prepare` run."""
