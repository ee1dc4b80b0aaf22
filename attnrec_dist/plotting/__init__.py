"""Pictures: an empty figure, letters of every language, and a file written whole."""
