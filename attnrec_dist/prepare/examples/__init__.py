"""Label and features -> labelled examples."""
