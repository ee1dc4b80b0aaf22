"""What in a log would spoil a model, found by counting and told worst first."""
