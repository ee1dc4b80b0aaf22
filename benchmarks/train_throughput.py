"""Training and evaluation of our SASRec beside RecTools, RePlay and RecBole: targets/s, users/s, peak memory.

    python benchmarks/train_throughput.py DATA_DIR --max_length 50 --peers DIR [--rounds 3] [--losses softmax sampled]

DIR holds an environment a peer: DIR/recbole/venv, DIR/rectools/venv, DIR/replay/venv, each with a Python and that peer
(recbole==1.2.1 with numpy<2 pandas<3 setuptools<81; rectools[torch]==0.19.0; replay-rec[torch]==0.22.0), on the same torch.
A peer whose environment is missing is left out. The runners stand in benchmarks/peers.

Equal for all: width 64, 2 blocks, 2 heads, feed-forward 64, dropout .2, Adam 1e-3, batch 128, one thread, one core, the same
histories (a user's last item tests, the one before validates). Not equal: a batch is 128 histories (attnrec: windows of them),
of RecBole 128 prefixes with one target each; our attention weights have no dropout unless the row says so. `targets/s` are
real targets, no padding, over all steps but the first three, by the clock. A round runs every row once, in a process of its own,
one after another; the table shows the medians of the rounds. Memory is the process's peak in training, above what it holds once
everything is imported. Lists: the peers list ten items for every user; ours finds the exact rank of every target in the whole
catalogue with and without what the user had, beside the ten best, and the table of metrics.

    python benchmarks/train_throughput.py data/beauty --max_length 50 --peers DIR --until .052 [--config RUN.yaml]

trains RecBole and ours with the full softmax, epoch after epoch, until NDCG@10 on validation (what a user had left out) is that
high, and tells the seconds of training; ours with the same settings, or those of a run's YAML.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from shared import stamp, write_result

from attnrec_dist.data.dataset import DataSet

RUNNERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Row:
    peer: str
    loss: str
    steps: dict[int, int]  # max_length -> steps: enough for some ten seconds
    variant: str = ""
    lists: bool = False  # times them as well

    @property
    def name(self) -> str:
        return f"{self.peer} {self.loss}" + (f", {self.variant}" if self.variant else "")


ROWS = [
    Row("attnrec", "softmax", {50: 175, 200: 33}, lists=True),
    Row("attnrec", "softmax", {50: 175, 200: 28}, "attention dropout"),
    Row("recbole", "softmax", {50: 53, 200: 9}, lists=True),
    Row("rectools", "softmax", {50: 8, 200: 7}, lists=True),
    Row("replay", "softmax", {50: 11, 200: 8}, lists=True),
    Row("attnrec", "sampled", {50: 350, 200: 43}),
    Row("attnrec", "sampled", {50: 350, 200: 33}, "attention dropout"),
    Row("attnrec", "sampled", {50: 175, 200: 13}, "own negatives"),
    Row("rectools", "sampled", {50: 13, 200: 6}, "own negatives"),
    Row("replay", "sampled", {50: 83, 200: 13}),
    Row("replay", "sampled", {50: 143, 200: 23}, "buckets"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a prepared data set, such as data/beauty")
    parser.add_argument("--max_length", type=int, choices=[50, 200], required=True)
    parser.add_argument("--peers", type=Path, default=os.environ.get("PEERS_HOME"), help="default: the variable PEERS_HOME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--losses", nargs="+", default=["softmax", "sampled"])
    parser.add_argument("--rows", nargs="*", default=[], help="only the rows whose name holds one of these words")
    parser.add_argument("--core", type=int, help="the CPU core that all of them run on")
    parser.add_argument("--until", type=float, help="time to this NDCG@10 on validation, instead of speed")
    parser.add_argument("--config", type=Path, help="with --until: the YAML that ours trains")
    asked = parser.parse_args()
    if asked.core is not None:
        os.sched_setaffinity(0, {asked.core})
    rows = chosen(asked)
    measured, shape = in_turns(rows, asked)
    versions = {row.peer: installed(row.peer, asked.peers) for row in rows}
    keys = {**stamp(), "data": asked.data.name, "max_length": asked.max_length, "shape": shape, "installed": versions}
    if asked.until:
        write_result({**keys, "until": asked.until, "rows": measured}, f"time-to-quality-{asked.data.name}")
        return
    medians = {name: {key: statistics.median(each[key] for each in of) for key in of[0]} for name, of in measured.items()}
    table(medians)
    write_result({**keys, "rounds": asked.rounds, "rows": medians, "each round": measured}, f"train-throughput-{asked.data.name}")


def chosen(asked: argparse.Namespace) -> list[Row]:
    rows = ROWS
    if asked.until:
        asked.rounds, rows = 1, [Row("attnrec", "softmax", {}), Row("recbole", "softmax", {})]
    rows = [row for row in rows if row.loss in asked.losses and interpreter(row.peer, asked.peers)]
    return [row for row in rows if not asked.rows or any(word in row.name for word in asked.rows)]


def in_turns(rows: list[Row], asked: argparse.Namespace) -> tuple[dict[str, list[dict]], dict[str, int]]:
    """(what every round measured of each row, the data's shape)."""
    measured: dict[str, list[dict]] = {row.name: [] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        histories = Path(folder) / "histories.txt"
        shape = write_histories(asked.data, histories)
        for turn in range(asked.rounds):
            for row in rows:
                measured[row.name].append(run(row, asked, histories))
                numbers = {key: value for key, value in measured[row.name][-1].items() if isinstance(value, int | float)}
                told = ", ".join(f"{key} {value:,.5g}" for key, value in numbers.items())
                print(f"round {turn + 1}: {row.name}: {told}", flush=True)
    return measured, shape


def interpreter(peer: str, peers: Path | None) -> str:
    """The peer's Python; "" where there is none."""
    if peer == "attnrec":
        return sys.executable
    found = (Path(peers) if peers else Path()) / peer / "venv" / "bin" / "python"
    return str(found.absolute()) if found.exists() else ""


def write_histories(data: Path, path: Path) -> dict[str, int]:
    opened = DataSet.open(data)
    users = events = 0
    with path.open("w") as file:
        for rows in opened.scan():
            for begin, end in zip(rows.offsets[:-1], rows.offsets[1:]):
                file.write(" ".join(map(str, rows.items[begin:end].tolist())) + "\n")
            users, events = users + len(rows.users), events + len(rows.items)
    return {"users": users, "items": opened.manifest.num_items, "events": events}


def run(row: Row, asked: argparse.Namespace, histories: Path) -> dict[str, float]:
    command = [interpreter(row.peer, asked.peers), str((RUNNERS / f"run_{row.peer}.py").absolute()), str(histories)]
    command += ["--loss", row.loss, "--max_length", str(asked.max_length)]
    command += ["--until", str(asked.until)] if asked.until else ["--steps", str(row.steps[asked.max_length])]
    command += ["--config", str(asked.config.absolute())] if asked.config and row.peer == "attnrec" else []
    command += ["--variant", row.variant] if row.variant else []
    command += ["--evaluate"] if row.lists else []
    command += ["--data", str(asked.data.absolute())] if row.peer == "attnrec" else []
    clean = {key: value for key, value in os.environ.items() if row.peer == "attnrec" or key != "PYTHONPATH"}
    clean |= dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
    if done.returncode:
        sys.exit(f"{row.name}: {done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def installed(peer: str, peers: Path | None) -> str:
    names = [{"attnrec": "attnrec_dist", "replay": "replay-rec", "deepctr": "deepctr-torch"}.get(peer, peer), "torch", "numpy"]
    code = f"import sys, importlib.metadata as m; print([(n, m.version(n)) for n in {names}], sys.version.split()[0])"
    done = subprocess.run([interpreter(peer, peers), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def table(medians: dict[str, dict[str, float]]) -> None:
    print(f"\n{'':36} {'targets/s':>10} {'ms a step':>10} {'peak MiB':>9} {'above imports':>14} {'users/s':>8}")
    for name, row in medians.items():
        users = f"{row['users/s']:8,.0f}" if "users/s" in row else ""
        numbers = f"{row['targets/s']:10,.0f} {row['ms a step']:10.1f} {row['peak MiB']:9,.0f} {row['above imports MiB']:14,.0f}"
        print(f"{name:36} {numbers} {users}")


if __name__ == "__main__":
    main()
