"""Files: read back checked, written whole, named by the user."""
