"""`attnrec inspect`: what is in a data set, counted and checked, as a table and a picture."""
