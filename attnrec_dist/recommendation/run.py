"""`attnrec recommend`: lists of many customers to a file or printed, in one process or under a launcher.

The customers are cut into parts of one size, whatever the number of processes, which make one each in turn. A part is kept as
soon as it is made (storage/output_parts.py), so that a killed command goes on where it was, on any number of processes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attnrec_dist.distributed import World, threads
from attnrec_dist.engine.preemption import StopRequest
from attnrec_dist.errors import ConfigError, StopRequested
from attnrec_dist.inference.histories import CustomerHistories, StoredCustomers, read_histories, read_items, read_lines
from attnrec_dist.inference.load import load_model
from attnrec_dist.monitoring.environment import version_of
from attnrec_dist.monitoring.watchdog import Watchdog, silence_of
from attnrec_dist.recommendation.recommend import SCHEMA, Recommendation, Recommender, Tally, as_table, described, lists_of
from attnrec_dist.run_dir import MARKER
from attnrec_dist.storage.output_parts import Staging
from attnrec_dist.storage.outputs import TABLE, check_output
from attnrec_dist.storage.stored import checksum_of, sha256_of
from attnrec_dist.terminal.layout import counted

PART = 512  # customers
SHOWN = 5  # items of a list that is in the file, whole, as well
TIMEOUT_SECONDS = 1800.0
TELL_EVERY = 10.0  # seconds
Say = Callable[[str], None]


@dataclass
class RecommendRequest:
    """What `attnrec recommend` was asked for."""

    top_k: int = 10
    users: list[str] | None = None
    users_file: Path | None = None
    histories: Path | None = None
    exclude: Path | None = None
    new_only: bool = False
    checkpoint: str = "best"
    data: str | None = None
    show: int = 0


@dataclass
class Asked:
    """A request with all that it names read: whose lists are wanted, of which model, without which items."""

    request: RecommendRequest
    recommender: Recommender
    names: list[str] | None  # of the customers that are wanted; None: all
    customers: StoredCustomers | CustomerHistories
    barred: np.ndarray  # int64, indices of items

    @property
    def parts(self) -> int:
        return -(-len(self.customers) // PART)

    def histories(self, part: int) -> CustomerHistories:
        return self.customers.part(part * PART, (part + 1) * PART)

    def answer(self, part: int) -> tuple[CustomerHistories, list[list[Recommendation]], Tally]:
        """What the model knows of a part's customers, their lists, and what is counted of them."""
        histories = self.histories(part)
        known = histories.known_only(self.recommender.num_items)
        answers = self.recommender.lists(known, self.request.top_k, self.barred, self.request.new_only)
        lists = [best for some in answers for best in some]
        return known, lists, Tally.of(histories, known, lists)

    def settings(self) -> dict[str, Any]:
        """All that the lists depend on, as JSON."""
        trained, request = self.recommender.trained, self.request
        manifest = trained.data.manifest
        return {
            "version": version_of("attnrec_dist"),
            "checkpoint": sha256_of(trained.checkpoint / MARKER),
            "configuration": checksum_of({**trained.tree, "data": {**trained.tree["data"], "path": None}}),
            "data set": [manifest.fingerprint, manifest.checksum],
            "device": trained.device.type,
            "customers": self.names and checksum_of({"names": self.names}),
            "histories": request.histories and sha256_of(request.histories),
            "exclude": request.exclude and sha256_of(request.exclude),
            "top_k": request.top_k,
            "new_only": request.new_only,
            "customers a part": PART,
        }


def recommend_run(run_dir: Path, output: Path | None, request: RecommendRequest) -> None:
    """A file of Parquet, CSV or JSON lines, a row an item of a list; whole or absent.

    Lists that are to be shown go to stdout, what was assumed and counted to stderr. Without a file all are shown, whole, by one
    process. Raises UserError alike on all ranks.
    """
    if request.top_k < 1:
        raise ConfigError(f"--top_k {request.top_k}: at least 1 is needed")
    if output is None and is_shared():
        raise ConfigError("lists are printed by one process: name a file with --output, or type attnrec recommend as it is")
    world, leave = joined()
    say = told if world.is_main else silent
    read = (request.histories, request.users_file, request.exclude)
    world.on_main(lambda: check_output(output, "--output", TABLE, read, make_folder=True))
    asked = world.together(lambda: opened(run_dir, request, world, say))
    with threads(asked.recommender.trained.threads):
        if output is None:
            told(str(printed(asked)))
            return
        staging, stop = Staging(output, SCHEMA, asked.settings()), StopRequest()
        stop.listen(
            but=signal.SIGINT
        )  # Ctrl-C ends it at once; what a launcher sends because another is lost leaves time to say so
        try:
            trained = asked.recommender.trained
            with Watchdog.of_others(silence_of(trained.tree, trained.where), world):
                make_parts(asked, staging, world, stop)
            leave()
            if world.is_main:  # the others need not wait for it
                told(f"{output}: {join_parts(asked, staging, stop)}")
        except StopRequested as why:
            raise StopRequested(f"{output}: stopped ({why}); the same command goes on with the parts that are done") from None
        finally:
            staging.close()


def told(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def silent(text: str) -> None:
    pass


def is_shared() -> bool:
    """Whether a launcher started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def joined() -> tuple[World, Callable[[], None]]:
    """This process's place in the job, and what to call once the others are no longer needed. One process joins nothing, which
    would take it a second."""
    if not is_shared():
        return World(), lambda: None
    from attnrec_dist.strategies.launch import join

    job = join("fp32", TIMEOUT_SECONDS)
    return job.world, job.close


def opened(run_dir: Path, request: RecommendRequest, world: World, say: Say) -> Asked:
    """Reads all that a request names. Raises UserError."""
    trained = load_model(run_dir, request.checkpoint, request.data, world.device if is_shared() else None)
    recommender = Recommender(trained)
    barred = recommender.known_items(read_items(request.exclude, "--exclude", trained.data, say) if request.exclude else [])
    if request.top_k > recommender.num_items:
        say(f"--top_k {request.top_k:,}: the catalogue has {recommender.num_items:,} items, so no list is longer")
    names = request.users
    if request.users_file:
        names = (names or []) + read_lines(request.users_file, "--users_file")
    if not request.histories:
        return Asked(request, recommender, names, StoredCustomers(trained.data, names), barred)
    fresh = read_histories(request.histories, trained.data, trained.config, say)
    return Asked(request, recommender, names, fresh if names is None else fresh.of(names), barred)


def make_parts(asked: Asked, staging: Staging, world: World, stop: StopRequest) -> None:
    """Those that are not there yet. All ranks make one each and then meet, so that none waits long for one that is lost.

    Raises StopRequested.
    """
    say = told if world.is_main else silent
    done = world.on_main(staging.open)
    world.on_main(lambda: list(map(told, staging.others())))
    if done:
        say(f"{staging.output}: goes on: {len(done):,} of {counted(asked.parts, 'part')} are done")
    left = sorted(set(range(asked.parts)) - set(done))
    last = time.monotonic()

    def make(number: int) -> None:
        stop.check()
        known, lists, tally = asked.answer(number)
        notes = {"tally": tally.as_json(), "sizes": [len(each) for each in lists]}
        staging.write(number, as_table(known.names, lists), notes)

    for first in range(0, len(left), world.size):
        mine = left[first + world.rank : first + world.rank + 1]
        world.together(lambda mine=mine: list(map(make, mine)))  # type: ignore[misc]
        if time.monotonic() - last > TELL_EVERY:
            last = time.monotonic()
            made = len(done) + min(first + world.size, len(left))
            say(f"{staging.output}: {made:,} of {counted(asked.parts, 'part')} are done")


def join_parts(asked: Asked, staging: Staging, stop: StopRequest) -> Tally:
    """The file, from all parts; prints the lists that are to be shown. Raises StopRequested."""
    tally = Tally()
    with staging.joining() as write:
        for number in range(asked.parts):
            stop.check()
            rows, notes = staging.read(number)
            write(rows)
            show = min(asked.request.show - tally.customers, len(notes["sizes"]))
            if show > 0:
                known = asked.histories(number).known_only(asked.recommender.num_items)
                print_lists(asked, known, lists_of(rows, notes["sizes"][:show]), SHOWN)
            tally.add(Tally.from_json(notes["tally"]))
    return tally


def printed(asked: Asked) -> Tally:
    """Prints all lists."""
    tally = Tally()
    for number in range(asked.parts):
        known, lists, counts = asked.answer(number)
        print_lists(asked, known, lists, asked.request.top_k)
        tally.add(counts)
    return tally


def print_lists(asked: Asked, known: CustomerHistories, lists: list[list[Recommendation]], longest: int) -> None:
    for place, best in enumerate(lists):
        print(described(known.names[place], known.part(place, place + 1), asked.recommender.trained.data, best[:longest]))
