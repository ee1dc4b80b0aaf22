"""What JSON Lines cost `attnrec prepare` against CSV: the same events in both, peak memory and CPU time of a process of its own.

    python benchmarks/json_lines.py [--events 5e6]

The log is made under data/json-lines where it is missing, always the same from its size. Memory is the peak resident set of the
child. Of JSON, the item is a field of a field.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import duckdb
from shared import attnrec, stamp, write_result

WORKPLACE = Path("data/json-lines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=lambda text: int(float(text)), default=5_000_000)
    events = parser.parse_args().events
    WORKPLACE.mkdir(parents=True, exist_ok=True)
    result: dict[str, object] = stamp() | {"events": events}
    for kind in ("csv", "jsonl"):
        file = WORKPLACE / f"{events}.{kind}"
        if not file.exists():
            made(file, kind, events)
        result[kind] = measured(file, kind)
        print(kind, result[kind], flush=True)
    write_result(result, "json-lines")


def made(file: Path, kind: str, events: int) -> None:
    item = "'i' || hash(range * 7 + 1) % 100000"
    nested = f"struct_pack(id := {item})" if kind == "jsonl" else item
    rows = (
        f"SELECT 'u' || hash(range) % 500000 AS user, {nested} AS product, 1700000000 + range AS time, range % 997 / 10 AS price"
    )
    options = "FORMAT json" if kind == "jsonl" else "FORMAT csv, HEADER"
    duckdb.sql(f"COPY ({rows} FROM range({events})) TO '{file}' ({options})")


def measured(file: Path, kind: str) -> dict[str, float]:
    """Of one prepare; and the size of the file in MB."""
    config = file.with_suffix(f".{kind}.yaml")
    item = "product.id" if kind == "jsonl" else "product"
    config.write_text(
        f"input: {{files: {file.name}}}\ncolumns: {{user: user, item: {item}, timestamp: time, numeric: [price]}}\n"
        f"output: {{dir: {WORKPLACE / kind}}}\n"
    )
    cost = attnrec("prepare", config, "--output", WORKPLACE / kind)
    return asdict(cost) | {"file_mb": file.stat().st_size / 1e6}


if __name__ == "__main__":
    main()
