"""TensorBoard, W&B (offline) and MLflow (files) get what metrics.jsonl has, go on in the same run, and never end a training."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnrec_dist.errors import MissingExtraError
from attnrec_dist.monitoring import trackers
from attnrec_dist.monitoring.metrics_log import Metrics

TRACKERS = ("tensorboard", "wandb", "mlflow")


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "attnrec_dist.monitoring.metrics_log.PATIENCE", 600.0
    )  # on a busy machine W&B takes longer than 20 s to start
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())


def in_tensorboard(run: Path) -> list[dict[str, list[tuple[int, float]]]]:
    """For each run that the tracker knows: {name: [(step, value), ...]}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    return [{tag: [(each.step, each.value) for each in board.Scalars(tag)] for tag in board.Tags()["scalars"]}]


def in_wandb(run: Path) -> list[dict[str, list[tuple[int, float]]]]:
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        values = found.setdefault(file.stem, {})
        for data in records(file.read_bytes()):
            record = Record.FromString(data)
            line = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for key, value in line.items():
                if "/" in key:
                    values.setdefault(key, []).append((line["step"], value))
    return list(found.values())


def records(data: bytes) -> Iterator[bytes]:
    """In LevelDB's log format: blocks of 32 KiB; in them checksum, length, type (1 whole, 2 to 4 parts), data."""
    place, parts = 7, b""  # after the file's own header
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def in_mlflow(run: Path) -> list[dict[str, list[tuple[int, float]]]]:
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'attnrec'")
    found = []
    for each in client.search_runs([experiment.experiment_id]):
        names = each.data.metrics
        history = {name: client.get_metric_history(each.info.run_id, name) for name in names}
        found.append({name.replace("_at_", "@"): [(at.step, at.value) for at in points] for name, points in history.items()})
    return found


READ = {"tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow}


@pytest.mark.parametrize("name", TRACKERS)
def test_a_training_that_goes_on_goes_on_in_the_same_run(name, trained, attnrec, tmp_path):
    pytest.importorskip(name)
    run = tmp_path / "run"
    options = ["--run_dir", run, "--data", trained.data, f"--tracking.{name}", "true"]
    done = attnrec("train", trained.run_yaml, *options, "--train.max_steps", "4")
    assert done.code == 0, done.err
    done = attnrec("train", trained.run_yaml, *options)
    assert done.code == 0, done.err
    assert not any("wandb" in name for name in children()), "it may still be writing"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = READ[name](run)
    done = attnrec("train", trained.run_yaml, *options)  # which is finished, so it has nothing to tell
    assert done.code == 0, done.err
    assert READ[name](run) == found
    joined: dict[str, dict[int, float]] = {}
    for each in found:
        for key, points in each.items():
            joined.setdefault(key, {}).update(points)
    assert name != "mlflow" or len(found) == 1
    assert name != "wandb" or {file.stem for file in run.glob("wandb/offline-run-*/*.wandb")} == {
        f"run-{(run / 'wandb.id').read_text()}"
    }
    assert joined["train/loss"] == pytest.approx({line["step"]: line["loss"] for line in lines if "loss" in line})
    measured = "eval/next_basket/all/ndcg@10"
    assert joined[measured] == pytest.approx({line["step"]: line[measured] for line in lines if measured in line})


def children() -> list[str]:
    """The names of the processes that this one has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has just ended
            continue
        if int(rest.split()[1]) == os.getpid() and rest.split()[0] != "Z":
            found.append(name)
    return found


def test_one_that_is_not_installed_is_told_before_anything_is_made(trained, attnrec, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tracking.wandb needs the package wandb: pip install 'attnrec_dist\[wandb\]'"):
        trackers.require(["wandb"])
    done = attnrec("train", trained.run_yaml, "--run_dir", tmp_path / "run", "--data", trained.data, "--tracking.mlflow", "true")
    assert done.code == 2
    assert "pip install 'attnrec_dist[mlflow]'" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["start", "log"])
def test_one_that_cannot_be_reached_is_told_once_and_left_out(place, trained, attnrec, tmp_path, monkeypatch):
    def unreachable(*arguments, **more):
        raise OSError(113, "No route to host")

    monkeypatch.setattr(trackers.TensorBoardTracker, place, unreachable)
    options = ["--run_dir", tmp_path / "run", "--data", trained.data, "--tracking.tensorboard", "true"]
    done = attnrec("train", trained.run_yaml, *options)
    assert done.code == 0, done.err
    assert done.err.count("No route to host") == 1
    assert "training goes on without it" in done.err
    losses = [json.loads(line).get("loss") for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses == [json.loads(line).get("loss") for line in (trained.run / "metrics.jsonl").read_text().splitlines()]


def test_the_name_of_a_run_is_kept_before_wandb_has_answered(tmp_path, monkeypatch):
    def unreachable(*arguments, **more):
        raise OSError(113, "No route to host")

    pytest.importorskip("wandb")
    monkeypatch.setattr(trackers, "WandBTracker", unreachable)
    names = []
    for _ in range(2):
        (tracker,) = trackers.open_trackers(["wandb"], tmp_path, "p", {})
        tracker.wait(time.monotonic() + 600)
        names.append((tmp_path / "wandb.id").read_text())
    assert names[0] == names[1] != ""


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"a/b?c", b"two\nlines", b"x" * 4000, None])
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_damaged_name_of_a_run_is_told_and_made_anew(name, damage, tmp_path, monkeypatch, capfd):
    """None: a FIFO stands there, of which reading would never end."""
    pytest.importorskip(name)
    asked = []

    class Fake:
        def __init__(self, project, **more):
            asked.append(more)
            self.tracker = SimpleNamespace(define_metric=lambda *_, **__: None, info=SimpleNamespace(run_id="0123abcd"))

        def start(self): ...
        def store_init_configuration(self, config): ...
        def finish(self): ...

    monkeypatch.setattr(trackers, "WandBTracker", Fake)
    monkeypatch.setattr(trackers, "MLflowTracker", Fake)
    monkeypatch.setattr(trackers, "_leave_wandb", lambda: None)
    kept = tmp_path / f"{name}.id"
    if damage is None:
        os.mkfifo(kept)
    else:
        kept.write_bytes(damage)
    for _ in range(2):
        (tracker,) = trackers.open_trackers([name], tmp_path, "p", {})
        tracker.end()
        tracker.wait(time.monotonic() + 600)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"attnrec: {kept}: ")
    assert line.endswith("; a new run of the tracker is begun")
    first, second = (each.get("id") or each.get("run_id") for each in asked)
    assert first in (None, second), "the new name is kept"
    assert second == kept.read_text()


class Slow(trackers.GeneralTracker):
    """Takes nothing until it is let."""

    name, requires_logging_directory = "slow", False

    def __init__(self):
        self.taken, self.let = [], threading.Event()

    def log(self, values, step=None, **more):
        self.let.wait(600)
        self.taken.append((step, values))

    def finish(self):
        self.taken.append("finished")


def test_one_that_is_slow_holds_nothing_up(tmp_path, capsys, monkeypatch):
    slow = Slow()
    metrics = Metrics(tmp_path / "metrics.jsonl", active=True)
    metrics.trackers = [trackers.Tracker("tensorboard", lambda: slow)]
    for step in range(5):
        metrics.log(step, loss=float(step), note="a word is no figure")
        metrics.flush()
    assert slow.taken == [], "all was logged before it had taken anything"
    slow.let.set()
    metrics.close()
    assert slow.taken == [*((step, {"train/loss": float(step)}) for step in range(5)), "finished"]
    monkeypatch.setattr("attnrec_dist.monitoring.metrics_log.PATIENCE", 0.05)
    slow = Slow()
    metrics.trackers = [trackers.Tracker("tensorboard", lambda: slow)]
    metrics.log(9, loss=0.0)
    metrics.flush()
    metrics.close()
    assert "metrics.jsonl has it all" in capsys.readouterr().err
    slow.let.set()
    monkeypatch.setattr(trackers, "WAITING", 2)
    slow = Slow()
    metrics.trackers = [trackers.Tracker("tensorboard", lambda: slow)]
    for step in range(9):
        metrics.log(step, loss=0.0)
        metrics.flush()
    assert capsys.readouterr().err.count("is too slow, so steps are left out") == 1
    slow.let.set()


def test_a_failed_one_takes_no_memory(tmp_path, capsys):
    def unreachable():
        raise OSError(113, "No route to host")

    tracker = trackers.Tracker("mlflow", unreachable)
    tracker.wait(time.monotonic() + 600)
    for step in range(100):
        tracker.log([{"step": step, "loss": 0.0}])
    assert tracker._lines.empty()
    assert capsys.readouterr().err.count("No route to host") == 1


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "nobody_has_this").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError):
        trackers.require(["nobody_has_this"])
