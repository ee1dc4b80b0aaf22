"""What is known of a user, an item, or both at a moment: the statements that look at strictly earlier seconds, and no others.

Events are first added up a second (`partials`), then a window over the seconds of one key runs up to the second before the
moment. `asked` holds the moments: table columns u, i, s. Labels look the other way: at the seconds after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnrec_dist.times.timestamps import seconds

KEYS = {"user": ("u",), "item": ("i",), "user_item": ("u", "i")}


@dataclass(frozen=True)
class AsOf:
    """A value at a moment. `value` names its partials in braces, and {earlier}: the window; `among`: the events it looks at."""

    of: str  # user, item, user_item
    partials: Mapping[str, str]  # name -> aggregate over the events (those of `among`) of one key and second
    value: str
    among: str = "true"
    within: str | None = None  # a duration; null: from the first event on
    later: bool = False  # the seconds after the moment instead

    @classmethod
    def count(cls, of: str, among: str, within: str | None = None, later: bool = False) -> AsOf:
        return cls(of, {"n": "count(*)"}, "coalesce(sum({n}) OVER {earlier}, 0)", among, within, later)

    def window(self) -> str:
        length = "UNBOUNDED" if self.within is None else str(seconds(self.within))
        frame = f"1 FOLLOWING AND {length} FOLLOWING" if self.later else f"{length} PRECEDING AND 1 PRECEDING"
        return f"(PARTITION BY {', '.join(KEYS[self.of])} ORDER BY s RANGE BETWEEN {frame})"


def known(of: str, wanted: Mapping[str, AsOf], log: str, asked: str) -> str:
    """SELECT of one row a key and moment in `asked`: the key, s, and each wanted value under its name. All are `of` the same."""
    keys = ", ".join(KEYS[of])
    partials: dict[str, str] = {}
    values: list[str] = []
    for name, each in wanted.items():
        own = {local: f'"{name}.{local}"' for local in each.partials}
        partials |= {own[local]: f"{aggregate} FILTER (WHERE {each.among})" for local, aggregate in each.partials.items()}
        values.append(f'{each.value.format(earlier=each.window(), **own)} AS "{name}"')
    among = " OR ".join(sorted({f"({each.among})" for each in wanted.values()}))
    added_up = ", ".join(f"{aggregate} AS {name}" for name, aggregate in partials.items())
    names = ", ".join(f'"{name}"' for name in wanted)
    return f"""
        SELECT {keys}, s, {names} FROM (
            SELECT {keys}, s, moment, {", ".join(values)} FROM (
                SELECT {keys}, s, false AS moment, {added_up} FROM {log} AS earlier_log WHERE {among} GROUP BY {keys}, s
                UNION ALL
                SELECT DISTINCT {keys}, s, true, {", ".join("NULL" for _ in partials)} FROM {asked} AS moments) AS both_kinds
        ) AS windows WHERE moment"""
