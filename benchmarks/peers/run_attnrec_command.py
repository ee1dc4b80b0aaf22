"""`attnrec` with the arguments given, as it is, with protocol.Clock looking on at each line of a training's log."""

from __future__ import annotations

import json
import sys

import datasets  # noqa: F401  which the data set is read with, imported when one is opened
import protocol

from attnrec_dist.cli import main as attnrec
from attnrec_dist.engine.run import Run


def main() -> None:
    clock, log = protocol.Clock(), Run.log

    def logged(self: Run, progress, loss, rate, batch, *more) -> None:
        log(self, progress, loss, rate, batch, *more)
        clock.step(batch.targets)

    Run.log = logged  # type: ignore[method-assign]
    code = attnrec(sys.argv[1:])
    print(json.dumps(clock.rates("examples")))
    sys.exit(code)


if __name__ == "__main__":
    main()
