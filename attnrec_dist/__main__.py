"""`attnrec`, and `python -m attnrec_dist`, which is what `accelerate launch -m attnrec_dist` starts."""

import sys
from typing import NoReturn


def run() -> NoReturn:
    """Ends the process with the command's exit code; a Ctrl-C that comes during the imports, too, is told in a line."""
    try:
        from attnrec_dist.cli import leave, main
        from attnrec_dist.terminal.interrupts import hear_interrupts

        hear_interrupts()
        leave(main())
    except KeyboardInterrupt:
        print("attnrec: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
