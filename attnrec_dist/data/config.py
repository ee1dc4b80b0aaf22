"""The `data` section of a run's YAML: which data set, and how histories become samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from attnrec_dist.paths import InputPath
from attnrec_dist.settings import Section


class DataConfig(Section):
    path: Annotated[str, InputPath("data")] = Field(
        description="the prepared data set, as written by `attnrec prepare`; --data overrides it"
    )
    basket: Literal["time", "none"] = Field(
        "time", description="time: a user's events of one time are a set, predicted together; none: every event is on its own"
    )
    target_events: list[str] | None = Field(
        None, description="event types that are predicted, such as [buy]; the others are only input; null: all"
    )
    event_input: bool = Field(
        True, description="whether models know the type of each event in a history; false: types only decide what is predicted"
    )
    max_length: int = Field(200, ge=1, description="tokens of a window; longer histories are cut, between baskets")
    windows: Literal["all", "last"] = Field(
        "all", description="all: every target is trained once an epoch; last: only what fits the last window of a history"
    )
    targets: Literal["all", "last", "prefixes"] = Field(
        "all",
        description="what is trained of a window. all: every target basket; last: only its last one; prefixes: every target "
        "basket is a sample of its own, with the max_length tokens before it as history",
    )
    empty_history: bool = Field(
        False,
        description="a history's first basket is trained too, as a sample with nothing before it; with targets prefixes",
    )
    context: int | None = Field(
        None, ge=0, description="tokens that a window repeats from the one before, without targets; null: half of max_length"
    )
    block_size: int = Field(1024, ge=1, description="samples that lie together in storage and are shuffled as one block")
    shuffle_blocks: int | None = Field(
        None, ge=1, description="blocks mixed with one another; null: all, a complete shuffle; fewer: reads stay local"
    )
    workers: int = Field(0, ge=0, le=1024, description="loader processes of each training process; 0: it reads itself")
    loader_timeout: float = Field(300.0, gt=0, description="seconds without a batch from a loader worker that end the run")
    verify: bool = Field(True, description="compare every shard with its checksum before the start")

    @model_validator(mode="after")
    def _context_fits(self) -> DataConfig:
        if self.context is not None and self.context >= self.max_length:
            raise ValueError(f"context: {self.context} leaves no room in a window of max_length {self.max_length}")
        if self.context is not None and self.targets == "prefixes":
            raise ValueError("context: with targets prefixes every sample has max_length tokens of history; leave it out")
        if self.empty_history and (self.targets, self.windows) != ("prefixes", "all"):
            raise ValueError("empty_history: needs targets prefixes and windows all")
        return self

    @property
    def context_tokens(self) -> int:
        return self.max_length // 2 if self.context is None else self.context

    def input_types(self, event_types: Sequence[str]) -> tuple[str, ...]:
        """The event types that a model is told of: the data set's, or none."""
        return tuple(event_types) if self.event_input else ()

    def samples_key(self) -> str:
        """Changes when any key changes that decides which samples there are."""
        parts: tuple[object, ...] = (self.basket, self.target_events, self.max_length, self.windows)
        parts += (self.context_tokens,) if self.targets == "all" else (self.context_tokens, self.targets)
        parts += ("empty_history",) if self.empty_history else ()
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
