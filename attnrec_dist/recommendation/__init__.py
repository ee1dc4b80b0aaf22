"""`attnrec recommend` and `load`: lists for customers, with reasons."""
