"""Times that would spoil a model: a few events far from all others, long times without any, dates without a time of day, one
second with a great part of the log, users with more events a day than a person has. suspects.py tells how they are looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from attnrec_dist.prepare import statements
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.findings.find import Finding, LogFacts, finding, share_of, shown
from attnrec_dist.terminal.layout import counted

A_DAY = 1000  # events that no person has in a day
GAP, LONG_GAP, SHORTER_GAP = 30, 0.5, 0.25  # days; shares of the log's days, the second where hardly any event lies beyond
HARDLY, FEW = 0.001, 0.05  # of the events
SAME_CLOCK, SAME_SECOND = 0.95, 0.2
DAY, QUARTER = 86_400_000_000, 900_000_000  # microseconds


def day() -> str:
    """SQL of the day since 1970 of an event, rounded down."""
    return f"(us - (us % {DAY} + {DAY}) % {DAY}) // {DAY}"


def _rates(engine: DuckEngine, log: LogFacts) -> Iterator[Finding]:
    if engine.row("SELECT max(seen) FROM row_codes")[0] < A_DAY:
        return
    busy = f"SELECT u, us // {DAY} AS day, count(*) AS n FROM events WHERE u IN (SELECT u FROM row_codes WHERE seen >= {A_DAY})"
    engine.table("busy_days", f"{busy} GROUP BY 1, 2 HAVING count(*) >= {A_DAY}")
    users, days, events = engine.row("SELECT count(DISTINCT u), count(*), sum(n) FROM busy_days")
    if users:
        worst = (
            "SELECT user_id, n FROM busy_days JOIN row_codes ON busy_days.u = row_codes.u ORDER BY n DESC, user_id, day LIMIT 1"
        )
        name, most = engine.row(worst)
        busy = f"{counted(users, 'user')} with {A_DAY:,} events or more in a day, on {counted(days, 'day')}"
        what = f"{busy}; {shown(name)} has {most:,} in one"
        yield finding(events / engine.row("SELECT sum(n) FROM moments")[0], what, "rate")


def _gaps(engine: DuckEngine, log: LogFacts) -> Iterator[Finding]:
    """Of the longest time without events: the side with fewer of them is strange, and the other may have another such time."""
    first, last = engine.row("SELECT min(day), max(day) FROM moments")
    for _ in range(3):
        of_days = f"SELECT day, sum(n) AS n FROM moments WHERE day BETWEEN {first} AND {last} GROUP BY day"
        before = "lag(day) OVER (ORDER BY day) AS before, sum(n) OVER (ORDER BY day) - n AS earlier, sum(n) OVER () AS total"
        gaps = f"SELECT day, {before} FROM ({of_days}) AS a"
        longest = f"SELECT day, before, earlier, total FROM ({gaps}) AS b WHERE day - before > {GAP} ORDER BY before - day, day"
        found = engine.rows(f"{longest} LIMIT 1")
        if not found:
            return
        after, before_it, earlier, total = map(int, found[0])
        fewer = min(earlier, total - earlier)
        if after - before_it <= (SHORTER_GAP if fewer < HARDLY * total else LONG_GAP) * (last - first):
            return
        yield _gap(before_it, after, (earlier, total), log.zone)
        first, last = (first, before_it) if earlier > fewer else (after, last)


def _gap(before: int, after: int, counts: tuple[int, int], zone: str) -> Finding:
    """Of two days without events between. counts: events before, events in all."""
    earlier, total = counts
    dates = {"end": _date(86_400 * (before + 1) - 1, zone, 1), "start": _date(86_400 * after, zone)}
    was, comes = _date(86_400 * before), _date(86_400 * after)
    length = f"{(after - before) / 365.25:.1f} years" if after - before > 700 else f"{after - before} days"
    fewer = min(earlier, total - earlier)
    if fewer > max(1, FEW * total):
        what = f"no event for {length}, from {was} to {comes}, with {earlier / total:.0%} of the events before"
        return finding(0.2, what, "inside", **dates)
    what = f"{share_of(fewer, total, 'events')} lie {length}"
    if earlier > fewer:
        return finding(0.6, f"{what} after the others, which end on {was}", "later", **dates)
    return finding(0.6, f"{what} before the others, which begin on {comes}", "earlier", **dates)


def _clocks(engine: DuckEngine, log: LogFacts) -> Iterator[Finding]:
    """Dates without times of day; a second that holds a great part of the log."""
    by_day = "SELECT day, sum(n) AS n, sum(even) AS even FROM moments GROUP BY day"
    figures = f"SELECT sum(n), sum(even), count(*), max(n), arg_max(day, (n, day)) FROM ({by_day}) AS a"
    total, even, days, most, day = map(int, engine.row(figures))
    if even >= SAME_CLOCK * total and total > 1:
        clock = f"SELECT (us % {DAY} + {DAY}) % {DAY} AS t, count(*) AS n FROM events WHERE us % {QUARTER} = 0 GROUP BY 1"
        n = engine.row(f"SELECT sum(n) FROM ({clock} ORDER BY 2 DESC, 1 LIMIT 2) AS a")[0]  # summer time and winter time
        if n >= SAME_CLOCK * total and days > 1:
            yield finding(0.08, f"{share_of(int(n), total, 'events')} have one time of day: the log has dates only", "dates")
    elif most >= SAME_SECOND * total:
        of_day = f"us >= {day * DAY} AND us < {(day + 1) * DAY}"
        second, n = engine.row(
            f"SELECT {statements.SECOND}, count(*) FROM events WHERE {of_day} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1"
        )
        users = engine.row(f"SELECT count(DISTINCT u) FROM events WHERE {of_day} AND {statements.SECOND} = {second}")[0]
        if n >= SAME_SECOND * total and users > 1:
            moment = datetime.fromtimestamp(second, UTC)
            what = f"{share_of(n, total, 'events')} are at one second, {moment:%Y-%m-%d %H:%M:%S} (UTC)"
            yield finding(0.3 * n / total, what, "one second")


def _date(second: int, zone: str = "UTC", later: int = 0) -> str:
    """The date of a unix second in a zone, so many days later."""
    try:
        return f"{datetime.fromtimestamp(second, ZoneInfo(zone)) + timedelta(days=later):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return f"second {second}"


RULES = [_rates, _gaps, _clocks]
