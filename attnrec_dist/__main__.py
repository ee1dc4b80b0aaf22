"""`python -m attnrec_dist`, which is what `accelerate launch -m attnrec_dist` starts."""

from attnrec_dist.cli import leave, main

if __name__ == "__main__":
    leave(main())
