"""attnrec_dist."""
