"""What `attnrec prepare` costs on generated dirty logs of growing size, and what a plain pandas script of the same steps costs.

    python benchmarks/prepare_scale.py [--events 5e6 20e6 50e6] [--memory_limit default 500MB] [--pandas 50e6 20e6 5e6]
                                       [--pandas_limit 12]

A log is made under data/prepare-scale where it is missing, a million rows at a time, always the same from its size and SEED:
visits and orders, popular items by Zipf's law, a bot, and rows that are damaged, repeated, of unwanted kinds, in no order.
`attnrec prepare` does all that it does by default, daily counts and item graph included. pandas cleans, drops duplicates,
splits, filters to the same core and sorts, and counts nothing; the sizes of --pandas are tried until one stays below
--pandas_limit GiB. Memory is the resident memory of the process and its children, sampled. CPU seconds depend little on what else
the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from shared import stamp, write_result

WORKPLACE = Path("data/prepare-scale")
SEED = 0
CHUNK = 1_000_000  # rows made at a time
FILES = 8
ITEMS, LATE_ITEMS = 1_000_000, 50_000  # the late ones are sold in the last tenth of the time only: most are cold
EVENTS_PER_USER = 10
FIRST_SECOND, SECONDS = 1_700_000_000, 180 * 86_400
KINDS = ["view", "cart", "buy", "heartbeat"]  # the last one is not wanted
BAD_TIMES = ["", "not-a-time", "2024-13-45", "9" * 18]
MISSING_USER, MISSING_ITEM, BAD_TIME, BAD_PRICE, REPEATED, BOT = 0.003, 0.001, 0.003, 0.001, 0.01, 0.004  # shares of the rows
CORE = 5
CONFIG = {
    "columns": {
        "user": "user",
        "item": "item",
        "timestamp": {"name": "time", "unit": "s"},
        "event": {"name": "event", "types": KINDS[:3]},
        "numeric": ["price"],
    },
    "filters": {"where": {"price": {"min": 0}}, "min_item_events": CORE, "min_user_events": CORE},
    "split": {"kind": "time", "train": 0.8, "validation": 0.1, "test": 0.1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"type": lambda text: int(float(text)), "nargs": "*"}
    parser.add_argument("--events", default=[5_000_000, 20_000_000, 50_000_000], help="sizes for prepare", **sizes)
    parser.add_argument("--memory_limit", nargs="*", default=["default"], help="engine.memory_limit of prepare, each in turn")
    parser.add_argument("--pandas", default=[50_000_000, 20_000_000, 5_000_000], help="sizes to try with pandas", **sizes)
    parser.add_argument("--pandas_limit", type=float, default=12, help="GiB at which pandas is stopped")
    parser.add_argument("--plain", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(*arguments.plain)
        return
    rows: dict[str, dict] = {"pandas": {}}
    for limit in arguments.memory_limit:
        name = "attnrec prepare" if limit == "default" else f"attnrec prepare, {limit}"
        rows[name] = {f"{events:,}": prepared(name, events, limit) for events in arguments.events}
    for events in arguments.pandas:
        rows["pandas"][f"{events:,}"] = row = with_pandas(events, arguments.pandas_limit)
        if "stopped at MiB" not in row:
            break
    write_result({**stamp(), "rows": rows}, "prepare-scale")


def prepared(name: str, events: int, limit: str) -> dict[str, object]:
    log = make_log(events)
    engine = {} if limit == "default" else {"engine": {"memory_limit": limit}}
    tree = {"input": {"files": f"{log.name}/*.parquet"}, **CONFIG, "output": {"dir": "unused"}, **engine}
    config, output = WORKPLACE / f"{log.name}.yaml", WORKPLACE / f"{log.name}-set"
    config.write_text(yaml.safe_dump(tree))
    row = measured([sys.executable, "-m", "attnrec_dist", "prepare", str(config), "--output", str(output)], output)
    manifest = json.loads((output / "manifest.json").read_text())
    row |= {"events/CPU s": events / row["CPU s"], "events/s": events / row["seconds"]}
    row |= {"kept": manifest["counts"], "items": manifest["num_items"], "all items": manifest["num_all_items"]}
    row |= {"cleaning": manifest["cleaning"], "statistics": manifest["statistics"], "fingerprint": manifest["fingerprint"]}
    show(name, events, row)
    return row


def with_pandas(events: int, limit: float) -> dict[str, object]:
    log, output = make_log(events), WORKPLACE / "pandas.parquet"
    row = measured([sys.executable, __file__, "--plain", str(log), str(output)], output, limit * 1024)
    if "stopped at MiB" not in row:
        row |= {"events/CPU s": events / row["CPU s"], "events/s": events / row["seconds"]}
        row |= {"kept": json.loads(output.with_suffix(".json").read_text())}
        output.unlink()
    show("pandas", events, row)
    return row


def show(name: str, events: int, row: dict) -> None:
    told = ", ".join(f"{key} {value:,.0f}" for key, value in row.items() if isinstance(value, int | float))
    print(f"{name:24} {events:>12,} rows: {told}", flush=True)


def measured(command: list[str], output: Path, limit_mib: float = float("inf")) -> dict[str, float]:
    """What a command costs: wall and CPU seconds, peak MiB of its process tree, peak MiB of its scratch directory on disk.

    Stops this script where the command fails; a command that passes the memory limit is killed, which the result tells.
    """
    scratch = output.parent / f".{output.name}.preparing"
    started = time.perf_counter()
    said = WORKPLACE / "said.txt"
    with said.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    peak = disk = 0.0
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        memory = resident(process.pid)
        peak, disk = max(peak, memory), max(disk, on_disk(scratch))
        if memory > limit_mib:
            os.killpg(process.pid, signal.SIGKILL)
            _, _, usage = os.wait4(process.pid, 0)
            return {"stopped at MiB": peak, "CPU s": usage.ru_utime + usage.ru_stime, "seconds": time.perf_counter() - started}
        time.sleep(0.1)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(f"{said.read_text()[-2000:]}\n{' '.join(command)} ended with {code}")
    return {
        "peak MiB": max(peak, usage.ru_maxrss / 1024),
        "CPU s": usage.ru_utime + usage.ru_stime,
        "seconds": time.perf_counter() - started,
        "scratch MiB": disk,
    }


def resident(pid: int) -> float:
    """MiB of a process and its children."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total / 2**20


def on_disk(directory: Path) -> float:
    """MiB under a directory whose files come and go."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total / 2**20


def make_log(events: int) -> Path:
    """The log of this size; made where it is missing."""
    log = WORKPLACE / f"log-{events}"
    if log.exists():
        return log
    started = time.perf_counter()
    building = WORKPLACE / f"log-{events}.building"
    building.mkdir(parents=True, exist_ok=True)
    users = max(events // EVENTS_PER_USER, 1)
    activity = np.cumsum(np.random.default_rng(SEED).pareto(1.3, users) + 0.3)
    popularity = np.random.default_rng(SEED + 1).permutation(ITEMS)  # so that ids do not follow it
    sizes = np.diff(np.minimum(np.arange(0, events + CHUNK, CHUNK), events))
    for file, chunks in enumerate(np.array_split(np.arange(len(sizes)), FILES)):
        if len(chunks):
            tables = (chunk(int(sizes[index]), activity, popularity, np.random.default_rng([SEED, index])) for index in chunks)
            first = next(tables)
            with pq.ParquetWriter(building / f"part-{file}.parquet", first.schema, compression="zstd") as writer:
                for table in [first], tables:
                    for each in table:
                        writer.write_table(each, row_group_size=250_000)
    building.rename(log)
    size = sum(path.stat().st_size for path in log.iterdir()) / 2**20
    print(f"{log}: {events:,} rows, {size:,.0f} MiB, made in {time.perf_counter() - started:.0f} s", flush=True)
    return log


def chunk(rows: int, activity: np.ndarray, popularity: np.ndarray, draw: np.random.Generator) -> pa.Table:
    """Rows of visits, in no order. Half of the visits are orders, bought at one moment; the others take a minute an event."""
    sizes = draw.geometric(0.25, rows)
    visit = np.repeat(np.arange(rows), sizes)[:rows]  # 4 rows a visit
    place = np.arange(rows) - np.searchsorted(visit, visit)
    is_order = draw.random(rows) < 0.5  # [visit]
    user = np.searchsorted(activity, draw.random(rows) * activity[-1])  # [visit]
    start = FIRST_SECOND + draw.integers(0, SECONDS, rows)  # [visit]
    user[draw.random(rows) < BOT] = 0
    second = start[visit] + np.where(is_order[visit], 0, 60 * place)
    item = popularity[np.exp(draw.uniform(0, np.log(ITEMS), rows)).astype(np.int64) - 1]  # place p with weight 1 / p
    late = (second > FIRST_SECOND + 0.9 * SECONDS) & (draw.random(rows) < 0.05)
    item = np.where(late, ITEMS + draw.integers(0, LATE_ITEMS, rows), item)
    kind = np.where(is_order[visit], 2, draw.choice(4, rows, p=[0.88, 0.1, 0, 0.02]))
    price = np.round(draw.gamma(2, 20, rows), 2)
    price[draw.random(rows) < BAD_PRICE] = np.nan
    price[draw.random(rows) < BAD_PRICE] *= -1
    table = pa.table(
        {
            "user": named("u", user[visit], draw.random(rows) < MISSING_USER),
            "item": named("i", item, draw.random(rows) < MISSING_ITEM),
            "time": pc.if_else(
                pa.array(draw.random(rows) < BAD_TIME),
                pa.array(BAD_TIMES).take(pa.array(draw.integers(0, len(BAD_TIMES), rows))),
                pa.array(second).cast(pa.string()),
            ),
            "event": pa.array(KINDS).take(pa.array(kind)),
            "price": pa.array(price),
        }
    )
    source = np.arange(rows)
    repeated = draw.random(rows) < REPEATED
    source[repeated] = draw.integers(0, rows, int(repeated.sum()))
    return table.take(pa.array(draw.permutation(source)))


def named(prefix: str, numbers: np.ndarray, missing: np.ndarray) -> pa.Array:
    texts = pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")
    return pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), texts)


def plain(log: Path, output: Path) -> None:
    """The same steps as a pandas user writes them: all in memory."""
    import pandas as pd

    frame = pd.concat([pd.read_parquet(path) for path in sorted(log.glob("*.parquet"))], ignore_index=True)
    frame["time"] = pd.to_numeric(frame["time"], errors="coerce")
    frame = frame[
        frame["user"].notna()
        & frame["item"].notna()
        & (frame["time"].abs() < 100_000_000_000)
        & frame["event"].isin(KINDS[:3])
        & (frame["price"] >= 0)
    ]
    frame["time"] = frame["time"].astype("int64")
    for column in ("user", "item", "event"):
        frame[column] = pd.factorize(frame[column], sort=True)[0].astype("int32")
    frame["price"] = frame["price"].astype("float32")
    keys = ["user", "time", "item", "event"]
    frame = frame.sort_values([*keys, "price"]).drop_duplicates(keys)
    times = np.sort(frame["time"].to_numpy())
    train_end, valid_end = times[round(0.8 * len(times))], times[round(0.9 * len(times))]
    frame["part"] = ((frame["time"] >= train_end).astype("int8") + (frame["time"] >= valid_end)).astype("int8")
    train = frame[frame["part"] == 0]
    while True:
        before = len(train)
        train = train[train["user"].map(train["user"].value_counts()) >= CORE]
        train = train[train["item"].map(train["item"].value_counts()) >= CORE]
        if len(train) == before:
            break
    frame = pd.concat([train, frame[frame["part"] > 0]]).sort_values(keys)
    frame.to_parquet(output, index=False)
    parts = frame["part"].value_counts()
    counts = {"rows": frame["user"].nunique(), "events": len(frame), "items": train["item"].nunique()}
    counts |= {f"{name}_events": int(parts[part]) for part, name in enumerate(("train", "validation", "test"))}
    output.with_suffix(".json").write_text(json.dumps({name: int(count) for name, count in counts.items()}))


if __name__ == "__main__":
    main()
