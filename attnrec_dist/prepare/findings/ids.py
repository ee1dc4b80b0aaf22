"""Raw ids under suspicion: some stand for "no value", some are one id written in several ways, some do not match a file's.

Statements over any query that gives `id` and `seen` (its events); memory is the engine's. nfc_normalize is DuckDB's own.
"""

from __future__ import annotations

from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.sql import text

NO_VALUE = (
    "", "null", "(null)", "<null>", "nil", "none", "nan", "<na>", "na", "n/a", "#n/a", "nat", "unknown", "(unknown)", "undefined",
    "anonymous", "anon", "guest", "missing", "empty", "(empty)", "(not set)", "not set", "-", "--", "?", "-1",
)  # fmt: skip
FIRST_NUMBERS = ("0", "1", "2", "3")
BLANKS = "".join(
    map(chr, (*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000))
)
UNSEEN = "".join(map(chr, (0xAD, *range(0x200B, 0x2010), 0x2060, 0xFEFF)))  # no width: they go, wherever they stand
_WIDE, _NARROW = ("".join(map(chr, range(start, start + 94))) for start in (0xFF01, 0x21))
_NARROWED = f"translate({{id}}, {text(_WIDE)}, {text(_NARROW)})"
_ASCII = "regexp_full_match({id}, '[!-~]*')"  # most ids; the others' statements cost ten times as much

# What two ids may differ in and be the same; each form is that of ids without the difference.
FORMS = {
    "blanks": f"CASE WHEN {_ASCII} THEN {{id}} ELSE trim(translate({{id}}, {text(UNSEEN)}, ''), {text(BLANKS)}) END",
    "character codes": f"CASE WHEN {_ASCII} THEN {{id}} ELSE nfc_normalize({_NARROWED}) END",
    "case": "lower({id})",
    "a trailing .0": "CASE WHEN contains({id}, '.0') THEN regexp_replace({id}, '^([0-9]+)[.]0+$', '\\1') ELSE {id} END",
    "leading zeros": "ltrim({id}, '0')",
}
_MIXED = "regexp_matches(id, '[a-z][A-Z]')"  # of random ids such as dQw4w9WgXcQ most have it


def form(names: list[str], column: str = "id") -> str:
    """SQL of an id without these differences.

    >>> form(["leading zeros", "case"])
    "ltrim(lower(id), '0')"
    """
    result = column
    for name in (name for name in FORMS if name in names):
        result = FORMS[name].replace("{id}", f"({result})" if " " in result else result)
    return result


def no_values(engine: DuckEngine, ids: str) -> list[tuple[str, int]]:
    """(id, events) of those that say "no value", most events first, at most a hundred.

    0 is one of them where no id is 1, 2 or 3, or it has five times their events; else it may be the first number.
    """
    low = form(["blanks", "character codes", "case"])
    listed = ", ".join(map(text, (*NO_VALUE, *FIRST_NUMBERS)))
    found = engine.rows(
        f"SELECT id, seen FROM ({ids}) AS a WHERE length(id) < 100 AND {low} IN ({listed}) ORDER BY seen DESC, id LIMIT 100"
    )
    numbers = {name: seen for name, seen in found if name in FIRST_NUMBERS}
    zero = numbers.pop("0", 0)
    keep = zero > 0 and zero >= 5 * max(numbers.values(), default=0)
    return [(name, seen) for name, seen in found if name.strip() not in FIRST_NUMBERS or (name == "0" and keep)]


def odd(engine: DuckEngine, ids: str) -> dict[str, tuple[int, int, str]]:
    """{what is odd: (ids, their events, the one with the most)}: blanks (or characters of no width), .0, powers of ten."""
    kinds = {
        "blanks": f"{form(['blanks'])} NOT IN (id, '')",
        ".0": "regexp_full_match(id, '[0-9]+[.]0+')",
        "power": "regexp_full_match(id, '[0-9]([.][0-9]+)?[eE][+][0-9]{2,3}')",
    }
    cases = " ".join(f"WHEN {test} THEN {text(kind)}" for kind, test in kinds.items())
    flagged = f"SELECT id, seen, CASE {cases} END AS kind FROM ({ids}) AS a"
    columns = "kind, count(*), CAST(sum(seen) AS BIGINT), arg_max(id, (seen, id))"
    return {
        kind: (count, seen, example)
        for kind, count, seen, example in engine.rows(f"SELECT {columns} FROM ({flagged}) AS b WHERE kind IS NOT NULL GROUP BY 1")
    }


def twins(engine: DuckEngine, ids: str) -> tuple[int, int, int, list[str], tuple[str, str]] | None:
    """Ids that are one another but for their form: (ids, what is left of them, events of all but each one's most frequent
    writing, what they differ in, the commonest first, an example of two). None: there are none.

    Where most ids mix cases, as random ones do, case tells ids apart.
    """
    names = list(FORMS)
    if not _twins(engine, ids, names):
        return None
    mixed, total = engine.row(f"SELECT count(*) FILTER (WHERE {_MIXED}), count(*) FROM ({ids}) AS a")
    if mixed > total / 2:
        names.remove("case")
        if not _twins(engine, ids, names):
            return None
    alone = [f"sum(CASE WHEN n{place} < n THEN 1 ELSE 0 END)" for place in range(len(names))]
    left, count, lost, *counts = engine.row(f"SELECT count(*), sum(n), sum(seen - most), {', '.join(alone)} FROM twins")
    ranked = sorted((-hits, place) for place, hits in enumerate(counts) if hits)
    keyed = f"SELECT id, seen, {form(names)} AS key FROM ({ids}) AS a"
    worst = "SELECT key FROM twins ORDER BY seen DESC, key LIMIT 1"
    one, other = (
        name for (name,) in engine.rows(f"SELECT id FROM ({keyed}) AS b WHERE key = ({worst}) ORDER BY seen DESC, id LIMIT 2")
    )
    return int(count), left, int(lost), [names[place] for _, place in ranked] or ["several of these"], (one, other)


def _twins(engine: DuckEngine, ids: str, names: list[str]) -> int:
    """Table `twins`: a row a key that several ids have. Returns how many; makes no table where there are none."""
    keyed = f"SELECT id, seen, {form(names)} AS key FROM ({ids}) AS a"
    shared = f"SELECT key FROM ({keyed}) AS b GROUP BY key HAVING count(*) > 1"
    found = int(engine.row(f"SELECT count(*) FROM ({shared}) AS c")[0])
    if not found:
        return 0
    alone = ", ".join(f"count(DISTINCT {form([name])}) AS n{place}" for place, name in enumerate(names))
    engine.table(
        "twins",
        f"""SELECT key, count(*) AS n, sum(seen) AS seen, max(seen) AS most, {alone}
        FROM ({keyed}) AS b WHERE key IN ({shared}) GROUP BY key""",
    )
    return found


def matches(engine: DuckEngine, ids: str, known: str, names: list[str]) -> int:
    """How many ids of the one query are among those of the other, but for these differences."""
    return int(
        engine.row(f"SELECT count(*) FROM ({ids}) AS a WHERE {form(names)} IN (SELECT {form(names)} FROM ({known}) AS b)")[0]
    )
