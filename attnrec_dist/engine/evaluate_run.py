"""`attnrec evaluate`: a run against the baselines."""
