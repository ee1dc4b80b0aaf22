"""`python tests/attack`: mutated logs, YAML and options against `prepare`; damaged and lying files against every command.

    python tests/attack --seconds 3600         an hour (`make attack`)
    python tests/attack --count 40 --seed 1    the first 40 cases
    python tests/attack --case 17              one case again, told in full; --keep DIR leaves its files there

A case is a function of its number and the seed alone. At the end a table, and each failure with the command that repeats it;
exit code 1 where there is one.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # before numpy: a thread would not live through a fork
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "agg", "CUDA_VISIBLE_DEVICES": ""}
    here = Path(__file__).resolve()
    sys.path[:0] = [str(here.parent), str(here.parents[1]), str(here.parents[2])]

    from driver import main

    sys.exit(main(__doc__))
