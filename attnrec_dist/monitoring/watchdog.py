"""A watchdog: ends a job in which nothing moves any more, and says which rank stands where.

Two threads a process. One looks whether this process gets on: no step, no part of an evaluation for too long. The other puts a
sign of life into the store through which the processes met, and listens to the others': a rank that is stopped, swapped out or
cut off is silent, however long a step takes. Who ends the job tells the others why through the store, prints every thread's
stack, and leaves at once, because the main thread may sit in a library that nothing else gets out of.
"""

from __future__ import annotations

import datetime
import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist
from pydantic import Field

from attnrec_dist.distributed import World
from attnrec_dist.errors import ExitCode
from attnrec_dist.settings import Section, build

TICK = 1.0  # seconds between signs of life
LAST_WORDS = 10.0  # seconds for files to be written before the process leaves
STANDSTILL = 5.0  # seconds by which a tick must be late to tell that this process was itself suspended
VERDICT = "watchdog/verdict"
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class WatchdogConfig(Section):
    start: float | None = Field(
        1800.0, gt=0, description="seconds that a job may take to its first step, checks and compilation included; null: any time"
    )
    step: float | None = Field(
        600.0,
        gt=0,
        description="seconds from then on without a step, a part of an evaluation or a checkpoint, that end the job; null: never",
    )
    silence: float | None = Field(
        30.0, gt=0, description="seconds without a sign of life from another process that end the job; null: never"
    )


class Watchdog:
    """Watches while it is entered. Ending the job, it gives `tell` the reason (rank 0) and `folder` each rank's flight record."""

    def __init__(self, config: WatchdogConfig, world: World, tell: Callable[[str], None], folder: Path | None = None):
        self.config, self.world, self.tell, self.folder = config, world, tell, folder
        self.trains = True
        self.step = 0
        self._limit = config.start
        self._moved = time.monotonic()
        self._closed = threading.Event()
        self._ending = threading.Lock()
        self._heard: dict[int, dict[str, Any]] = {}
        self._store: Any = None
        self._main = threading.get_ident()

    @classmethod
    def of_others(cls, silence: float | None, world: World) -> Watchdog:
        """For what trains nothing: listens to the other processes alone, since a part of it may take as long as it likes."""
        watchdog = cls(WatchdogConfig(start=None, step=None, silence=silence), world, lambda why: None)
        watchdog.trains = False
        return watchdog

    def __enter__(self) -> Watchdog:
        self._moved = time.monotonic()
        watches = [self._watch_progress]
        if self.world.size > 1 and self.config.silence:
            from torch.distributed.distributed_c10d import _get_default_store

            store: Any = _get_default_store()
            self._store = store.clone()  # of its own: the main thread may be waiting in the other
            self._store.set_timeout(datetime.timedelta(seconds=self.config.silence))
            watches.append(self._watch_others)
        for watch in watches:
            threading.Thread(target=watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._ending:  # where the job is being ended, this thread's own error, if any, comes from that and is not told
            self._closed.set()

    def moved(self, step: int | None = None) -> None:
        """The job got on: a step of this number, or a part of something longer."""
        with self._ending:  # a rank that wakes up now shall not get on: the others are leaving
            self._moved = time.monotonic()
            if step is not None:
                self.step, self._limit = step, self.config.step

    def _watch_progress(self) -> None:
        for stood_still in self._ticks():
            if stood_still:
                self._moved = time.monotonic()
            waited = time.monotonic() - self._moved
            if self._limit and waited > self._limit:
                others = [self._described(rank, sign) for rank, sign in sorted(self._heard.items())]
                self._end(f"{self._described()} has not got on for {waited:.0f} s{'; '.join(['', *others])}")

    def _watch_others(self) -> None:
        """Rank 0 listens to all, the others to rank 0 and to whoever ends the job."""
        watched = [rank for rank in range(self.world.size) if rank != self.world.rank and 0 in (rank, self.world.rank)]
        last: dict[int, float] = {}
        answered = time.monotonic()
        for number, stood_still in enumerate(self._ticks()):
            if stood_still:
                last, answered = {}, time.monotonic()
            try:
                self._listen(number, watched, last)
                answered = time.monotonic()
            except (dist.DistError, RuntimeError) as error:
                if time.monotonic() - answered > self._silence:
                    self._end(f"{self._described()} does not reach the processes' meeting place any more ({error})")
            for rank, since in last.items():
                if time.monotonic() - since > self._silence:
                    silent = self._described(rank, self._heard[rank])
                    self._end(f"no sign of life for {self._silence:.0f} s from {silent}; it was stopped, swapped out or cut off")

    @property
    def _silence(self) -> float:
        return self.config.silence or float("inf")

    def _listen(self, number: int, watched: list[int], last: dict[int, float]) -> None:
        """Gives the sign of this tick and takes in the others'; `last` is when each rank's sign was last a new one."""
        sign = {"number": number, "host": socket.gethostname(), "step": self.step, "place": place(self._main)}
        self._store.set(_key(self.world.rank), json.dumps(sign))
        if self._store.check([VERDICT]):
            self._end(self._store.get(VERDICT).decode(), tell_others=False)
        for rank in watched:
            if self._store.check([_key(rank)]):
                heard = json.loads(self._store.get(_key(rank)))
                if rank not in last or heard["number"] != self._heard[rank]["number"]:
                    last[rank] = time.monotonic()
                self._heard[rank] = heard

    def _ticks(self) -> Iterator[bool]:
        """At once and every second until closed: whether this process had been suspended meanwhile, so that no waiting time
        counts."""
        before = time.monotonic()
        while not self._closed.is_set():
            now = time.monotonic()
            yield now - before > TICK + STANDSTILL
            before = now
            self._closed.wait(TICK)

    def _described(self, rank: int | None = None, sign: dict[str, Any] | None = None) -> str:
        """A rank as its last sign tells of it, or this one as it is."""
        if sign is None:
            return f"rank {self.world.rank} on {socket.gethostname()} ({self._after(self.step)}in {place(self._main)})"
        return f"rank {rank} on {sign['host']} (last heard of {self._after(sign['step'])}in {sign['place']})"

    def _after(self, step: int) -> str:
        return f"after step {step}, " if self.trains else ""

    def _end(self, why: str, tell_others: bool = True) -> None:
        """Leaves with all stacks and, below them, the message; does not come back."""
        with self._ending:
            if self._closed.is_set():
                return
            message = f"{why}; run the same command again{' to go on from the last checkpoint' if self.trains else ''}"
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            print(f"attnrec, rank {self.world.rank}: error: {message}", file=sys.stderr, flush=True)
            try:
                if tell_others and self._store is not None:
                    self._store.set(VERDICT, why)
                    time.sleep(2 * TICK)  # the store may live in this process or end with it
                last_words = threading.Thread(target=self._last_words, args=(why,), daemon=True)
                last_words.start()
                last_words.join(LAST_WORDS)
            finally:
                os._exit(ExitCode.FAULT)

    def _last_words(self, why: str) -> None:
        """What is written to files: of a disk that does not answer, this thread alone has to wait."""
        if self.world.is_main:
            self.tell(why)
        if self.folder is not None and self.world.size > 1:
            last = flight_record(self.folder / f"flight-rank-{self.world.rank}.json")
            print(f"attnrec, rank {self.world.rank}: {last}", file=sys.stderr, flush=True)


def silence_of(tree: dict[str, Any], where: str) -> float | None:
    """The seconds of silence that a run's own configuration allows its processes."""
    return build(WatchdogConfig, tree.get("watchdog") or {}, where).silence


def flight_record(path: Path) -> str:
    """Writes the last RECORDED collectives, which torch keeps, and tells the very last. All ranks' files show who is where."""
    try:
        from torch._C import _distributed_c10d as recorder  # NCCL has a record of its own

        dump = getattr(recorder, "_dump_nccl_trace_json" if dist.get_backend() == "nccl" else "_dump_fr_trace_json")
        text = dump(includeCollectives=True, onlyActive=False)
        path.write_bytes(text)
        last = [entry for entry in json.loads(text)["entries"] if entry["process_group"][0] == "0"][-1]  # of all processes' group
    except Exception as error:  # the job is ending: this must not keep it
        return f"no flight record ({error or type(error).__name__})"
    sizes = ", ".join(map(str, last["input_sizes"]))
    return f"its last collective: no. {last['collective_seq_id']}, {last['profiling_name']} of {sizes}; all on record: {path}"


def _key(rank: int) -> str:
    return f"watchdog/{rank}"


def place(thread: int) -> str:
    """Where a thread is: the innermost two functions of this package, such as `sum (distributed.py:69) of train_step (...)`."""
    frame = sys._current_frames().get(thread)
    found: list[str] = []
    while frame is not None and len(found) < 2:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            found.append(f"{code.co_name} ({os.path.relpath(code.co_filename, PACKAGE)}:{frame.f_lineno})")
        frame = frame.f_back
    return " of ".join(found) or "no code of attnrec_dist"
