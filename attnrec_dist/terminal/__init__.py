"""What is printed: lines that fit, and never end a command."""
