"""What counts as a time, in SQL and in Python."""
