"""The keys of a configs/prepare/*.yaml file that choose what is learnt from: filters, baskets, the split. choice.py does it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from attnrec_dist.paths import InputPath
from attnrec_dist.prepare.config.sections import moment
from attnrec_dist.prepare.durations import Duration
from attnrec_dist.settings import Section
from attnrec_dist.times.timestamps import seconds


class Bounds(Section):
    min: float | None = Field(default=None, allow_inf_nan=False, description="smallest value kept")
    max: float | None = Field(default=None, allow_inf_nan=False, description="largest value kept")

    @model_validator(mode="after")
    def _not_empty(self) -> Bounds:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


ID_LISTS = ("keep_users", "drop_users", "keep_items", "drop_items")  # keys of FiltersSection
LONGEST_GAP = 100 * 366 * 86_400  # seconds
_CORE = "repeated with its sibling until both hold; split time: in the training part, later parts stay whole; else everywhere"


class IdsFile(Section):
    """`drop_users: bots.txt` is short for `drop_users: {file: bots.txt}`."""

    file: Annotated[str, InputPath(patterns=True)] = Field(
        description="text, an id a line (blanks around it are taken off), or csv, tsv, parquet; found as input.files are"
    )
    column: str | None = Field(default=None, description="of csv, tsv and parquet: the column with the ids, as in the log")
    delimiter: str | None = Field(default=None, min_length=1, max_length=1, description="as in input")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


class FiltersSection(Section):
    where: dict[str, Bounds] = Field(default={}, description="numeric bounds a column, for example {Quantity: {min: 1}}")
    drop_duplicates: bool = Field(
        default=True, description="keep one of the rows with equal user, item, time and event: the one with the smallest numbers"
    )
    min_item_events: int = Field(default=1, ge=1, description=f"drop the events of items with fewer events; {_CORE}")
    min_user_events: int = Field(default=1, ge=1, description=f"drop the events of users with fewer events; {_CORE}")
    max_user_events: int | None = Field(
        default=None,
        ge=1,
        description="drop users with more events, such as bots and tills, whole; before min_item_events and min_user_events. "
        "Split time: more training events, as later ones are not known yet; null: keep all",
    )

    keep_users: IdsFile | None = Field(default=None, description="file of the users to learn from, an id a line; null: all")
    drop_users: IdsFile | None = Field(default=None, description="file of users to leave out, such as bots and tests")
    keep_items: IdsFile | None = Field(default=None, description="file of the items to learn from; null: all")
    drop_items: IdsFile | None = Field(default=None, description="file of items to leave out, such as postage and fees")

    @model_validator(mode="after")
    def _some_user_fits(self) -> FiltersSection:
        if self.max_user_events is not None and self.max_user_events < self.min_user_events:
            raise ValueError(f"max_user_events {self.max_user_events} is below min_user_events {self.min_user_events}; raise it")
        return self


class BasketsSection(Section):
    gap: Duration | None = Field(
        default=None,
        description="events of a user less than this apart, as in 30m, are one basket: all take the time of its first event, and "
        "the order inside is lost. Baskets are found after input.start and input.end, before duplicates and the split. null: a "
        "basket is what has one time",
    )

    @field_validator("gap")
    @classmethod
    def _is_no_age(cls, gap: str | None) -> str | None:
        if gap is not None and seconds(gap) > LONGEST_GAP:
            raise ValueError("longer than a hundred years; write one as in 30m or 12h")
        return gap


class SplitSection(Section):
    kind: Literal["time", "leave_one_out", "leave_last_basket"] = Field(
        default="time",
        description="time: cuts for all users alike; leave_one_out: a user's last event is test, the one before validation "
        "(the default with user_items and pairs); leave_last_basket: so are all events of a user's last second with any, and of "
        "the one before",
    )
    ties: Literal["refuse", "keep"] = Field(
        default="refuse",
        description="leave_one_out: what to do where the held-out events of a tenth of the users share their second with "
        "others of the user: baskets, which it would cut apart. refuse: stop; keep: cut by item id all the same",
    )
    validation_from: str | None = Field(
        default=None, description="first moment of the validation part, ISO 8601, for example 2011-09-01"
    )
    test_from: str | None = Field(default=None, description="first moment of the test part, ISO 8601")
    last: int = Field(
        default=1,
        ge=1,
        description="leave_one_out, leave_last_basket: how many of a user's last events (baskets) are test, and as many before "
        "them validation; users with none besides are training as a whole",
    )
    train: float = Field(default=0.8, gt=0, le=1, description="share of the events, the earliest, where no dates are given")
    validation: float = Field(default=0.1, ge=0, lt=1, description="share of the events after those")
    test: float = Field(default=0.1, ge=0, lt=1, description="share of the events after those")

    @property
    def is_by_user(self) -> bool:
        """Whether each user has cuts of their own, as data.manifest.Split has it."""
        return self.kind != "time"

    @model_validator(mode="after")
    def _no_conflict(self) -> SplitSection:
        dates = [key for key in ("validation_from", "test_from") if getattr(self, key) is not None]
        shares = [key for key in ("train", "validation", "test") if key in self.model_fields_set]
        if self.is_by_user and dates:
            raise ValueError(f"kind {self.kind} has no cuts in time; leave out {' and '.join(dates)}")
        if not self.is_by_user and self.last != 1:
            raise ValueError("last is of kind leave_one_out and leave_last_basket; leave it out, or set kind: leave_one_out")
        if self.ties != "refuse" and self.kind != "leave_one_out":
            raise ValueError("ties is of kind leave_one_out; leave it out, or set kind: leave_one_out")
        if len(dates) == 1:
            raise ValueError(f"{dates[0]} is given alone; give both validation_from and test_from, or neither")
        if dates and shares and (self.train, self.validation, self.test) != (0.8, 0.1, 0.1):
            raise ValueError(f"both dates and shares ({', '.join(shares)}) are given; leave one of them out")
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError(f"train + validation + test is {self.train + self.validation + self.test:g}; they must add up to 1")
        for key in dates:
            moment(getattr(self, key), "UTC")
        return self
