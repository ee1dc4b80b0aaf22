"""Which events are learnt from, and which are held out: baskets, duplicates, users and items left out, the split."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from attnrec_dist.data.manifest import Split
from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.prepare import cleaning, statements
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.config.sections import moment
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.report import KEPT, day
from attnrec_dist.times.timestamps import seconds

Progress = Callable[[str], None]
MOST_CUT = 0.1  # share of the users; a log of clicks has a few such ties


def join_baskets(engine: DuckEngine, config: PrepareConfig, progress: Progress) -> None:
    """Gives the events of a basket one time, where baskets.gap says what one is."""
    gap = config.baskets.gap
    if gap is None:
        return
    engine.table("events", statements.joined_in_baskets(len(config.columns.numeric), seconds(gap)))
    baskets = engine.row("SELECT count(*) FROM (SELECT DISTINCT u, us FROM events) AS a")[0]
    progress(f"baskets.gap {gap}: {count(engine):,} events in {baskets:,} baskets")


def drop_duplicates(engine: DuckEngine, config: PrepareConfig) -> int:
    """Returns how many rows went."""
    if not config.filters.drop_duplicates:
        return 0
    before = count(engine)
    engine.table("events", statements.distinct(len(config.columns.numeric)))
    return before - count(engine)


def filter_and_split(engine: DuckEngine, config: PrepareConfig, left_out: dict[str, int], progress: Progress) -> Split:
    """Gives every event its part. Split by time, users and items are chosen by the training part alone; else by the whole log,
    first."""
    if config.split.is_by_user:
        choose(engine, config, "true", left_out, progress)
        kind, last = config.split.kind, config.split.last
        split = Split(kind=kind, train_end=None, valid_end=None, last=last)
        engine.table("events", statements.split_by_user(len(config.columns.numeric), last, by_basket=kind == "leave_last_basket"))
        if kind == "leave_one_out" and config.split.ties == "refuse":
            check_ties(engine)
    else:
        split = cut_times(engine, config)
        engine.table("events", statements.split_in_time(split.train_end or 0, split.valid_end or 0))
        choose(engine, config, f"part = {statements.TRAIN}", left_out, progress)
    left_out[KEPT] = count(engine)
    check_parts(engine, config, split)
    return split


def check_ties(engine: DuckEngine) -> None:
    """Raises InputError where leave_one_out cut the baskets of MOST_CUT of the users: the rest of what is asked for would be
    trained on."""
    cut, users = engine.row(statements.users_with_cut_baskets())
    if cut >= max(1, MOST_CUT * users):
        raise InputError(
            f"split.kind: leave_one_out holds out single events, but those of {cut:,} of {users:,} users share their time with "
            "other events of the user, which would be trained on; to hold out whole baskets type --split.kind leave_last_basket, "
            "or --split.ties keep to cut them by item id all the same"
        )


def choose(engine: DuckEngine, config: PrepareConfig, among: str, left_out: dict[str, int], progress: Progress) -> None:
    """Leaves out users with too many events, then what has too few; `among`: SQL of the events that are counted for it."""
    before = count(engine)
    if config.filters.max_user_events is not None:
        engine.table("events", statements.of_usual_users(config.filters, among))
    usual = count(engine)
    keep_core(engine, config, among, progress)
    left_out |= {"above max_user_events": before - usual, cleaning.REASONS[-1]: usual - count(engine)}


def cut_times(engine: DuckEngine, config: PrepareConfig) -> Split:
    """The two cuts: given as dates, or the times of the events at which the shares are reached (ties go to the later part)."""
    asked = config.split
    if asked.validation_from is not None and asked.test_from is not None:
        zone = config.columns.timestamp.time_zone
        train_end, valid_end = moment(asked.validation_from, zone), moment(asked.test_from, zone)
        if train_end > valid_end:
            raise ConfigError(f"split.validation_from {asked.validation_from} is after split.test_from {asked.test_from}")
        return Split(kind="time", train_end=train_end, valid_end=valid_end)
    total = count(engine)
    beyond = engine.row("SELECT max(us) // 1000000 + 1 FROM events")[0]
    train, validation = (Fraction(str(share)) for share in (asked.train, asked.validation))  # so that .7 + .2 is .9 + 0
    positions = (round(train * total), round((train + validation) * total))
    cuts = [engine.row(statements.second_at(position))[0] for position in positions]
    train_end, valid_end = (beyond if cut is None else cut for cut in cuts)
    return Split(kind="time", train_end=train_end, valid_end=valid_end)


def keep_core(engine: DuckEngine, config: PrepareConfig, among: str, progress: Progress) -> None:
    """Iterated k-core: users by the items left, items by the users left, until the sets stand still (they only shrink)."""
    filters = config.filters
    if filters.min_item_events == 1 and filters.min_user_events == 1:
        return
    engine.table("core_items", f"SELECT DISTINCT i FROM events WHERE {among}")
    previous: tuple[int, ...] = ()
    for rounds in range(1, 10_000):
        engine.table("core_users", statements.core_users(filters, among))
        engine.table("core_items", statements.core_items(filters, among))
        sizes = engine.row("SELECT (SELECT count(*) FROM core_users), (SELECT count(*) FROM core_items)")
        if sizes == previous:
            progress(f"{sizes[0]:,} users and {sizes[1]:,} items have enough events, after {rounds} rounds of leaving out")
            break
        previous = sizes
    engine.table("events", statements.in_core(among))


def check_parts(engine: DuckEngine, config: PrepareConfig, split: Split) -> None:
    """Raises InputError when nothing is left to train on."""
    total, train = engine.row(f"SELECT count(*), count(*) FILTER (WHERE part = {statements.TRAIN}) FROM events")
    if train:
        return
    core = f"min_item_events {config.filters.min_item_events} and min_user_events {config.filters.min_user_events}"
    most = config.filters.max_user_events
    raised = f", or raise filters.max_user_events {most}" if most is not None else ""
    if split.train_end is None:
        raise InputError(f"no event is left: filters.{core} are too high for this log; lower them{raised}")
    first, last = engine.row("SELECT min(us) // 1000000, max(us) // 1000000 FROM events") if total else (None, None)
    if total and first == last:
        raise InputError(
            f"no training event is left: all {total:,} events are of {day(first)} (UTC), so no cut in time parts them; is "
            "columns.timestamp the right column? Else type --split.kind leave_one_out --split.ties keep"
        )
    span = f"; events lie between {day(first)} and {day(last)}" if total else ""
    raise InputError(
        f"no training event is left before {day(split.train_end)} (UTC){span}; move split.validation_from, "
        f"raise split.train, or lower filters.{core}{raised}"
    )


def count(engine: DuckEngine) -> int:
    return int(engine.row("SELECT count(*) FROM events")[0])
