"""`python -m attnrec_dist`, which is what `accelerate launch -m attnrec_dist` starts."""

import sys

from attnrec_dist.cli import main

if __name__ == "__main__":
    sys.exit(main())
