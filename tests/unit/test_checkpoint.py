"""Checkpoints: exact, whole or absent, refused when damaged or foreign; docs/resume.md against the code."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from alone import alone
from torch import nn

from attnrec_dist.checkpoints import checkpoint
from attnrec_dist.checkpoints.checkpoint import Progress
from attnrec_dist.engine.config import run_config_class
from attnrec_dist.engine.optimizer import OptimizerConfig, make_optimizer
from attnrec_dist.engine.run import FREE_KEYS, FREE_SECTIONS
from attnrec_dist.errors import CheckpointError, DamagedError, StorageError
from attnrec_dist.run_dir import MARKER, RunDir, read_weights, verify
from attnrec_dist.settings import iterate_keys
from attnrec_dist.storage.stored import sealed, sha256_of

IDENTITY = {"data fingerprint": "f" * 64, "model": "sasrec"}
DOC = Path(__file__).parents[2] / "docs" / "resume.md"


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))
        self.loss = nn.Module()


def tiny(seed: int = 0) -> tuple[Tiny, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = Tiny()
    return module, make_optimizer(module, OptimizerConfig(lr=0.1, weight_decay=0.01))


def step(module: Tiny, optimizer: torch.optim.Optimizer, number: int) -> float:
    torch.manual_seed(number)
    loss = module.model(torch.randn(8, 3)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def saved(path: Path, steps: list[int]) -> RunDir:
    run = RunDir(path)
    run.create()
    module, optimizer = tiny()
    for number in range(1, max(steps) + 1):
        step(module, optimizer, number)
        if number in steps:
            checkpoint.save(run, Progress(step=number), alone(module, optimizer), IDENTITY)
    return run


def test_going_on_from_a_checkpoint_is_bitwise_going_on(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    module, optimizer = tiny()
    for number in range(5):
        step(module, optimizer, number)
    progress = Progress(5, best_value=0.1 + 0.2, best_step=3, evaluations_without_gain=2, finished="", seconds=1.5)
    path = checkpoint.save(run, progress, alone(module, optimizer), IDENTITY)
    expected = [step(module, optimizer, number) for number in range(5, 10)]

    other, other_optimizer = tiny(seed=1)
    verify(path, IDENTITY)
    checkpoint.load_weights(path, other)
    assert checkpoint.load(path, alone(other, other_optimizer)) == progress
    assert [step(other, other_optimizer, number) for number in range(5, 10)] == expected
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert read_weights(path).keys() == module.model.state_dict().keys()


def test_the_files_of_a_checkpoint_hold_no_code(tmp_path):
    path = saved(tmp_path / "run", [1]).complete_checkpoints()[0]
    assert sorted(file.name for file in path.iterdir()) == [
        MARKER,
        "objective.safetensors",
        "optimizer.safetensors",
        "progress.json",
    ]


# Damaged and foreign ones


@pytest.mark.parametrize("name", ["objective.safetensors", "optimizer.safetensors", "progress.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "extend"])
def test_damage_is_refused_with_the_way_out(tmp_path, name, damage):
    path = saved(tmp_path / "run", [1, 2]).complete_checkpoints()[-1]
    content = bytearray((path / name).read_bytes())
    if damage == "remove":
        (path / name).unlink()
    else:
        content[len(content) // 2] ^= damage == "flip"
        changed = {"truncate": content[:-1], "flip": content, "extend": content + b"\0"}[damage]
        (path / name).write_bytes(changed)
    with pytest.raises(CheckpointError, match=rf"{name}: .*; remove .*step-00000002 to go on from the one before it"):
        verify(path, IDENTITY)


@pytest.mark.parametrize("marker", ["", "{", "[]", "{}", '{"files": 3}', '{"format_version": 1}'])
def test_a_damaged_marker_is_refused(tmp_path, marker):
    path = saved(tmp_path / "run", [1]).complete_checkpoints()[0]
    (path / MARKER).write_text(marker)
    with pytest.raises(CheckpointError):
        verify(path, IDENTITY)


def test_a_checkpoint_of_other_data_or_another_format_is_refused(tmp_path):
    path = saved(tmp_path / "run", [1]).complete_checkpoints()[0]
    with pytest.raises(CheckpointError, match=r"was written with data fingerprint ffff.*, but this run has abc"):
        verify(path, {**IDENTITY, "data fingerprint": "abc"})
    marker = json.loads((path / MARKER).read_text())
    (path / MARKER).write_text(json.dumps(sealed({**marker, "format_version": 2})))
    with pytest.raises(CheckpointError, match="has format 2, this version reads 1"):
        verify(path, IDENTITY)


@pytest.mark.parametrize("damage", ["truncate", "marker", "list", "step", "progress", "directory"])
def test_the_newest_whole_one_is_found_and_damaged_ones_are_told(tmp_path, damage):
    run = saved(tmp_path / "run", [1, 2, 3])
    for path in run.complete_checkpoints()[1:]:
        marker = json.loads((path / MARKER).read_text())
        if damage == "truncate":
            os.truncate(path / "objective.safetensors", 10)
        elif damage == "directory":
            (path / "progress.json").unlink()
            (path / "progress.json").mkdir()
        elif damage == "progress":  # the sums agree: somebody's own
            (path / "progress.json").write_text("[]")
            marker["files"]["progress.json"] = {"bytes": 2, "sha256": sha256_of(path / "progress.json")}
            (path / MARKER).write_text(json.dumps(sealed(marker)))
        else:
            changed = {"marker": "{", "list": "[]", "step": json.dumps(sealed({**marker, "step": 1}))}[damage]
            (path / MARKER).write_text(changed)
    before = tree(run.path)
    found, damaged = checkpoint.newest(run, IDENTITY)
    assert found.name == "step-00000001"
    assert [path.name for path, _ in damaged] == ["step-00000003", "step-00000002"]
    assert all("remove" not in why for _, why in damaged)
    assert tree(run.path) == before, "nothing is written by looking"
    checkpoint.pass_over(path for path, _ in damaged)
    assert [path.name for path in run.complete_checkpoints()] == ["step-00000001"]


def test_one_flipped_digit_of_a_marker_is_seen(tmp_path):
    path = saved(tmp_path / "run", [1]).complete_checkpoints()[0]
    text = (path / MARKER).read_text()
    for place in re.finditer(r"[0-9a-f]{64}|\d+", text):
        changed = text[: place.start()] + ("0" if text[place.start()] != "0" else "1") + text[place.start() + 1 :]
        (path / MARKER).write_text(changed)
        with pytest.raises(CheckpointError):
            verify(path, IDENTITY)


def test_what_a_checkpoint_was_trained_with_is_bound_to_it(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    identity = {**IDENTITY, "manifest checksum": "m", "config": {"model": {"layers": 2}, "loss": {"name": "softmax"}}}
    path = checkpoint.save(run, Progress(step=1), alone(*tiny()), identity)
    assert verify(path, identity).manifest == "m"
    with pytest.raises(CheckpointError, match=r"changed since; set back:\n  model.layers: was 2, now 3$"):
        verify(path, {**identity, "config": {"model": {"layers": 3}, "loss": {"name": "softmax"}}})
    verify(path, {**identity, "config": {**identity["config"], "younger": 1}})
    verify(saved(tmp_path / "older", [1]).complete_checkpoints()[0], identity)  # knows of neither


def tree(path: Path) -> dict[str, bytes | str]:
    """Every file's bytes and every link's target."""
    return {
        str(each): os.readlink(each) if each.is_symlink() else each.read_bytes() for each in path.rglob("*") if not each.is_dir()
    }


def test_where_all_are_damaged_or_one_is_foreign_nothing_is_passed_over(tmp_path):
    run = saved(tmp_path / "run", [1, 2])
    with pytest.raises(CheckpointError, match="but this run has other") as caught:
        checkpoint.newest(run, {**IDENTITY, "model": "other"})
    assert not isinstance(caught.value, DamagedError)
    assert "remove" not in str(caught.value)
    for path in run.complete_checkpoints():
        os.truncate(path / "objective.safetensors", 10)
    with pytest.raises(DamagedError, match=r"step-00000002.*none is left that is whole: remove"):
        checkpoint.newest(run, IDENTITY)
    assert len(run.complete_checkpoints()) == 2
    assert checkpoint.newest(RunDir(tmp_path / "none"), IDENTITY) == (None, [])


def test_stray_names_are_no_checkpoints_and_stay(tmp_path):
    run = saved(tmp_path / "run", [1, 2, 3])
    (run.checkpoints / "step-00000009").write_text("mine")
    for name in ("step-abc", "step-1", "notes", "step-00000008 copy"):
        (run.checkpoints / name).mkdir()
        (run.checkpoints / name / MARKER).write_text("{}")
    (run.checkpoints / "step-00000007").symlink_to("step-00000001")
    (run.checkpoints / "step-00000006").symlink_to("nowhere")
    (run.path / "best").symlink_to("/nowhere")
    (run.path / "last").mkdir()
    (run.path / "last" / "mine").touch()
    stray = {path.name for path in run.checkpoints.iterdir()} - {f"step-{step:08d}" for step in (1, 2, 3)}
    assert [path.name for path in run.complete_checkpoints()] == [f"step-{step:08d}" for step in (1, 2, 3)]
    assert [run.checkpoint(name).name for name in ("best", "last")] == ["step-00000003"] * 2, "as they will be linked"
    checkpoint.prune(run, keep=1, best_step=0)
    for name in ("best", "last"):
        checkpoint.link(run, name, run.complete_checkpoints()[-1])
        assert run.checkpoint(name).name == "step-00000003"
    assert {path.name for path in run.checkpoints.iterdir()} == stray | {"step-00000003"}
    assert [(path / "mine").exists() for path in run.path.glob("last.moved-aside-*")] == [True]


def test_a_link_that_leads_out_of_the_run_is_no_checkpoint(tmp_path):
    run, other = saved(tmp_path / "run", [1]), saved(tmp_path / "other", [1])
    (run.path / "best").symlink_to(other.complete_checkpoints()[0])
    assert run.checkpoint("best") == run.checkpoints / "step-00000001"


def lost(link: Path) -> None:
    """Nothing is there."""


def leads_nowhere(link: Path) -> None:
    link.symlink_to("checkpoints/step-00000009")


def leads_round(link: Path) -> None:
    link.symlink_to(link)


def is_a_file(link: Path) -> None:
    link.write_text("checkpoints/step-00000002")


@pytest.mark.parametrize("damage", [lost, leads_nowhere, leads_round, is_a_file])
def test_where_the_link_is_damaged_the_best_is_the_one_that_the_newest_tells(tmp_path, damage):
    run = saved(tmp_path / "run", [1, 2, 3])
    progress = run.checkpoints / "step-00000003" / "progress.json"
    damage(run.path / "best")
    damage(run.path / "last")
    before = sorted(path.name for path in run.path.rglob("*"))
    for best, found in ((2, 2), (0, 3), (1, 1)):
        progress.write_text(json.dumps({"best_step": best}))
        assert run.checkpoint("best").name == f"step-{found:08d}"
        assert run.checkpoint("last").name == "step-00000003"
    progress.write_text(json.dumps({"best_step": 7}))
    with pytest.raises(CheckpointError, match=r"no complete checkpoint 'best'; complete ones: .*; name one of them with --check"):
        run.checkpoint("best")
    progress.write_text("damaged")
    assert run.checkpoint("best").name == "step-00000002", "by what the one before it tells"
    assert sorted(path.name for path in run.path.rglob("*")) == before


@pytest.mark.parametrize("damage", [Path.unlink, lambda marker: (marker.unlink(), os.mkfifo(marker))], ids=["gone", "FIFO"])
def test_where_the_best_itself_is_damaged_no_other_is_taken_for_it(tmp_path, damage):
    run = saved(tmp_path / "run", [1, 2])
    checkpoint.link(run, "best", run.complete_checkpoints()[-1])
    damage(run.checkpoints / "step-00000002" / "complete.json")
    with pytest.raises(CheckpointError, match="no complete checkpoint 'best'"):
        run.checkpoint("best")


def test_one_that_was_stepped_aside_stands_for_one_that_never_became_whole(tmp_path):
    run = saved(tmp_path / "run", [1, 2])
    (run.checkpoints / "step-00000002").rename(run.checkpoints / ".step-00000002.aside")
    assert checkpoint.newest(run, IDENTITY)[0].name == ".step-00000002.aside"
    checkpoint.put_asides_back(run)
    assert checkpoint.newest(run, IDENTITY)[0].name == "step-00000002"


# Pruning


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(1, 1, [1, 6]), (2, 6, [5, 6]), (2, 3, [3, 5, 6]), (9, 1, [1, 2, 3, 4, 5, 6]), (1, 0, [6])],
)
def test_pruning_keeps_the_newest_and_the_best(tmp_path, keep, best, left):
    run = saved(tmp_path / "run", [1, 2, 3, 4, 5, 6])
    (run.checkpoints / ".step-00000007.99.partial").mkdir()  # killed attempts
    (run.checkpoints / "step-00000008").mkdir()
    checkpoint.prune(run, keep, best)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [f"step-{number:08d}" for number in left]
    for path in run.complete_checkpoints():
        verify(path, IDENTITY)


# A full disk


def refuse_when(monkeypatch, function: str, call: int) -> None:
    """The `call`-th call of this function, counted from 0, and those after it find the disk full."""
    module, _, name = function.rpartition(".")
    original, calls = getattr(sys.modules[module], name), iter(range(10**6))

    def refuse(*args, **kwargs):
        if next(calls) >= call:
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    monkeypatch.setattr(function, refuse)


@pytest.mark.parametrize("call", range(6))
def test_a_disk_that_fills_up_at_any_sync_leaves_the_checkpoint_before_whole(tmp_path, monkeypatch, call):
    run = saved(tmp_path / "run", [1])
    module, optimizer = tiny()
    step(module, optimizer, 1)
    with monkeypatch.context() as patched:
        refuse_when(patched, "os.fsync", call)
        if call < 5:  # three files, their directory, the marker
            with pytest.raises(StorageError, match=r"step 2|complete\.json"):
                checkpoint.save(run, Progress(step=2), alone(module, optimizer), IDENTITY)
        else:
            checkpoint.save(run, Progress(step=2), alone(module, optimizer), IDENTITY)
    names = [path.name for path in run.checkpoints.iterdir() if (path / MARKER).exists()]
    assert sorted(names) == ["step-00000001"] + ["step-00000002"] * (call == 5)
    if call != 3:  # renamed and unmarked: the next prune takes it away
        assert len(list(run.checkpoints.iterdir())) == len(names)
    verify(run.complete_checkpoints()[-1], IDENTITY)
    checkpoint.save(run, Progress(step=2), alone(module, optimizer), IDENTITY)
    assert checkpoint.newest(run, IDENTITY)[0].name == "step-00000002"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB, of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs rights that this process lacks: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_really_full_disk(small_disk):
    run = RunDir(small_disk / "run")
    run.create()
    module = nn.Module()
    module.model = nn.Linear(128, 128)  # 66 kB, and twice as much for its optimizer
    optimizer = make_optimizer(module, OptimizerConfig())
    module.model(torch.ones(1, 128)).sum().backward()
    optimizer.step()
    checkpoint.save(run, Progress(step=1), alone(module, optimizer), IDENTITY)
    with pytest.raises(StorageError, match="step 2"):
        checkpoint.save(run, Progress(step=2), alone(module, optimizer), IDENTITY)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000001"]
    verify(run.complete_checkpoints()[0], IDENTITY)
    checkpoint.load(run.complete_checkpoints()[0], alone(module, optimizer))


# The same step once more, as after an evaluation that a stop request had cut short


def test_saving_a_step_again_replaces_it(tmp_path):
    run = saved(tmp_path / "run", [1])
    module, optimizer = tiny()
    step(module, optimizer, 1)
    checkpoint.save(run, Progress(step=1, best_value=0.5), alone(module, optimizer), IDENTITY)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000001"]
    assert json.loads((run.checkpoints / "step-00000001" / "progress.json").read_text())["best_value"] == 0.5


@pytest.mark.parametrize("call", range(5))
def test_a_step_that_cannot_be_saved_again_keeps_its_checkpoint(tmp_path, monkeypatch, call):
    run = saved(tmp_path / "run", [1])
    module, optimizer = tiny()
    step(module, optimizer, 1)
    with monkeypatch.context() as patched:
        refuse_when(patched, "os.fsync", call)
        with pytest.raises(StorageError):
            checkpoint.save(run, Progress(step=1, best_value=0.5), alone(module, optimizer), IDENTITY)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000001"]
    verify(run.checkpoints / "step-00000001", IDENTITY)
    assert json.loads((run.checkpoints / "step-00000001" / "progress.json").read_text())["best_value"] is None


def test_killed_while_a_step_is_saved_again_the_old_one_is_put_back(tmp_path, monkeypatch):
    run = saved(tmp_path / "run", [1])
    module, optimizer = tiny()
    step(module, optimizer, 1)

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # as a kill before the marker leaves it: nothing tidies up
        patched.setattr(checkpoint, "put_asides_back", lambda run_dir: None)
        patched.setattr(checkpoint, "sha256_of", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(run, Progress(step=1, best_value=0.5), alone(module, optimizer), IDENTITY)
    assert [path.name for path in run.complete_checkpoints()] == [".step-00000001.aside"]
    checkpoint.put_asides_back(run)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000001"]
    verify(run.checkpoints / "step-00000001", IDENTITY)


# Killed at any moment

SAVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_checkpoint import IDENTITY, Progress, RunDir, alone, checkpoint, step, tiny
run = RunDir(Path(sys.argv[1]))
run.create()
module, optimizer = tiny()
for number in range(1, 100000):
    step(module, optimizer, number)
    path = checkpoint.save(run, Progress(step=number, best_step=3), alone(module, optimizer), IDENTITY)
    checkpoint.link(run, "last", path)
    if number == 3:
        checkpoint.link(run, "best", path)
    checkpoint.prune(run, 1, 3)
    if number == 4:
        print("saving", flush=True)
"""


def test_killed_at_any_moment_the_newest_complete_one_is_whole(tmp_path):
    """Frozen at forty random moments and killed at the last: what lies there must be whole each time."""
    chance = random.Random(0)
    run = RunDir(tmp_path / "run")
    here = str(Path(__file__).parent)
    child = subprocess.Popen([sys.executable, "-c", SAVER, str(run.path), here], stdout=subprocess.PIPE, text=True)
    if child.stdout.readline() != "saving\n":
        raise RuntimeError("the saving process did not start")
    for _ in range(40):
        time.sleep(chance.uniform(0.001, 0.02))
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        assert_usable(run)
        child.send_signal(signal.SIGCONT)
    child.kill()
    child.communicate()
    assert_usable(run)

    module, optimizer = tiny()
    step(module, optimizer, 1)
    checkpoint.save(run, Progress(step=99_999, best_step=3), alone(module, optimizer), IDENTITY)
    checkpoint.prune(run, 1, 3)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-00000003", "step-00099999"]


def assert_usable(run: RunDir) -> None:
    name = run.complete_checkpoints()[-1].name
    path = run.checkpoints / name
    verify(path, IDENTITY)
    module, optimizer = tiny()
    assert checkpoint.load(path, alone(module, optimizer)).step == int(name.removeprefix("step-"))
    verify(run.checkpoint("best"), IDENTITY)
    verify(run.checkpoint("last"), IDENTITY)
    assert run.checkpoint("best").name == "step-00000003"


# docs/resume.md


def documented() -> dict[str, str]:
    rows = re.findall(r"^\| `([a-z_.*]+)` \| (may change|frozen) \|", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a key is listed twice"
    return dict(rows)


def test_the_table_of_keys_is_the_codes():
    free = {key for key, verdict in documented().items() if verdict == "may change"}
    assert free == set(FREE_KEYS) | {f"{section}*" for section in FREE_SECTIONS}


def test_every_key_of_a_run_has_a_row():
    table = documented()
    section = run_config_class({"model": {"name": "sasrec"}})
    leaves = [
        key for key, _ in iterate_keys(section) if not any(other.startswith(f"{key}.") for other, _ in iterate_keys(section))
    ]
    missing = [
        key for key in leaves if key not in table and not any(key.startswith(row[:-1]) for row in table if row.endswith("*"))
    ]
    assert missing == []
    nowhere = [row for row in table if not any(key == row or (row.endswith("*") and key.startswith(row[:-1])) for key in leaves)]
    assert nowhere == [], "the table names keys that do not exist"
