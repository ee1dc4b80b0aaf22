"""A trained model put to use: loading it, recommending with it."""
