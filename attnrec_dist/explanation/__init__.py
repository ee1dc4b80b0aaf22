"""`attnrec explain`: what a model weighed, checked, as text, page and heat map."""
