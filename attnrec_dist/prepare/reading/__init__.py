"""Files of any format -> rows of text, whole and checked."""
