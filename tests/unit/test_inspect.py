"""`attnrec inspect`: figures against lists, damage that is found, pictures that come out."""

from __future__ import annotations

import collections
import dataclasses
import doctest
import json
import re
import shutil
import statistics
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prepare_helpers import contents, edit_manifest, flip_byte, run, write_csv

from attnrec_dist.data.dataset import DataSet, Rows
from attnrec_dist.data.manifest import SEQUENCES
from attnrec_dist.errors import DataError
from attnrec_dist.inspection import plots as data_plots
from attnrec_dist.inspection import report as data_report
from attnrec_dist.inspection import scan as inspecting
from attnrec_dist.inspection.plots import draw
from attnrec_dist.inspection.report import report
from attnrec_dist.inspection.scan import BIN_PLACES, BIN_SECONDS, MOST_BINS, Histogram, Inspection, bins, inspect
from attnrec_dist.prepare.shard_writer import record_of, write_shard

ALL = {"train": 1, "validation": 0, "test": 0}


def lines(tmp_path: Path, text: str) -> DataSet:
    from attnrec_dist.prepare.config import PrepareConfig
    from attnrec_dist.prepare.pipeline import prepare
    from attnrec_dist.settings import build

    (tmp_path / "log.txt").write_text(text)
    tree = {"input": {"files": [str(tmp_path / "log.txt")], "format": "user_items"}, "output": {"dir": "unused"}}
    prepare(build(PrepareConfig, tree, "t"), tmp_path, tmp_path / "set")
    return DataSet.open(tmp_path / "set")


# Figures


def test_figures_are_what_a_walk_over_lists_finds(shop):
    data = DataSet.open(shop.data)
    found = inspect(data)
    catalogue = set(data.item_ids(np.arange(data.manifest.num_items)))
    lengths, training, baskets, baskets_a_user, repeats = [], [], [], [], 0
    events, users, cold = [0] * 3, [0] * 3, [0] * 3
    types: collections.Counter[tuple[str, int]] = collections.Counter()
    items: collections.Counter[str] = collections.Counter()
    days: collections.Counter[tuple[int, int]] = collections.Counter()
    for _, train_end, valid_end, tokens in contents(data):
        lengths.append(len(tokens))
        training += [train_end] if train_end else []
        sizes = collections.Counter(second for _, second, *_ in tokens)
        baskets += sizes.values()
        baskets_a_user.append(len(sizes))
        parts = [(place >= train_end) + (place >= valid_end) for place in range(len(tokens))]
        for part in set(parts):
            users[part] += 1
        had = set()
        for part, (item, second, kind, _) in zip(parts, tokens, strict=True):
            events[part] += 1
            cold[part] += item not in catalogue
            types[kind, part] += 1
            items[item] += part == 0
            days[part, second // 86_400] += 1
            repeats += item in had
            had.add(item)
    for histogram, numbers in [
        (found.lengths, lengths),
        (found.train_lengths, training),
        (found.baskets, baskets),
        (found.baskets_a_user, baskets_a_user),
    ]:
        assert histogram.counts == collections.Counter(numbers)
        assert histogram.mean == pytest.approx(statistics.mean(numbers))
    assert (found.events.tolist(), found.users.tolist(), found.cold_events.tolist()) == (events, users, cold)
    assert sum(cold[1:]) > 0
    assert found.repeats == repeats > 0
    assert found.by_type.tolist() == [[types[name, part] for part in range(3)] for name in ("view", "buy")]
    assert found.item_counts.tolist() == [items[name] for name in data.items()["id"].to_pylist()]
    assert found.top == data.titles(np.arange(5))
    assert found.bins[1] - found.bins[0] == 86_400
    first = int(found.bins[0]) // 86_400
    assert found.time_line.tolist() == [[days[part, first + day] for day in range(len(found.bins) - 1)] for part in range(3)]
    ranked = sorted((items[name] for name in catalogue), reverse=True)
    assert found.share_of_top(0.1) == pytest.approx(sum(ranked[: round(0.1 * len(ranked))]) / sum(ranked))
    assert found.share_of_baskets == pytest.approx(sum(size > 1 for size in baskets) / len(baskets))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.floats(0, 1))
def test_a_quantile_is_the_smallest_number_with_so_many_not_above(numbers, share):
    histogram = Histogram()
    for some in (numbers[::2], numbers[1::2]):
        histogram.add(np.array(some, np.int64))
    expected = next(n for n in sorted(numbers) if sum(other <= n for other in numbers) >= share * len(numbers))
    assert histogram.quantile(share) == expected
    assert histogram.total == len(numbers)


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**12), st.sampled_from([BIN_SECONDS, BIN_PLACES]))
def test_bins_are_equal_few_and_cover(start, length, widths):
    edges = bins(start, start + length, widths)
    assert edges[0] <= start <= start + length < edges[-1]
    assert len(edges) - 1 <= MOST_BINS + 1
    assert len(set(np.diff(edges).tolist())) == 1
    assert edges[1] > start
    assert edges[-2] <= start + length


# The table


def test_the_table_tells_the_split_and_the_rest(shop):
    text = report(inspect(DataSet.open(shop.data)))
    manifest = json.loads((shop.data / "manifest.json").read_text())
    cut = manifest["split"]["train_end"]
    for part in (
        manifest["fingerprint"][:16],
        f"{manifest['counts']['train_events']:,}",
        str(np.datetime64(cut, "s").astype("datetime64[m]")).replace("T", " "),
        "events a basket",
        "cold users",
        f"{manifest['num_all_items'] - manifest['num_items']} cold (without a training event)",
        "popular items",
        "buy",
        "Thing, no. ",
        "sha256",
    ):
        assert part in text, part
    assert all(line == line.rstrip() for line in text.split("\n"))


def test_a_log_without_times_has_places(tmp_path):
    found = inspect(lines(tmp_path, "u a b a c\nv a b d\nw a\n"))
    text = report(found)
    assert "leave_one_out" in text
    assert "place in its user's history" in text
    assert "none: no user has two events at one time" in text
    assert "1970" not in text
    assert found.bins.tolist() == [0, 1, 2, 3, 4]
    assert found.time_line.tolist() == [[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert found.repeats == 1


def test_with_leave_one_out_cold_items_stand_in_the_catalogue(tmp_path):
    found = inspect(lines(tmp_path, "u a b a c\nv a b d\nw a\n"))
    assert (found.data.manifest.num_items, found.data.manifest.num_all_items) == (4, 4)
    assert found.cold.sum() == 2, "c and d stand only at a history's end"
    assert found.cold_events.tolist() == [0, 0, 2]
    text = report(found)
    assert "2 cold (without a training event, in the catalogue all the same)" in text
    assert re.search(r"^test +2 .* 2$", text, re.MULTILINE)


# Damage


@pytest.fixture
def copy(shop, tmp_path) -> Path:
    return shutil.copytree(shop.data, tmp_path / "data")


def rewritten(path: Path, **changes) -> DataSet:
    """The data set with other values in its one shard, and a manifest that agrees with the file."""
    data = DataSet.open(path)
    (rows,) = data.scan()
    rows = dataclasses.replace(rows, **{name: change(getattr(rows, name).copy(), rows) for name, change in changes.items()})
    (shard,) = data.manifest.shards
    write_shard(rows, path / SEQUENCES / shard.name)
    edit_manifest(path, shards=[record_of(path / SEQUENCES / shard.name, shard.rows).model_dump()])
    return DataSet.open(path)


def put(place, value):
    """A change of one value, or of all where place is a slice; both may depend on the rows."""

    def change(values: np.ndarray, rows: Rows) -> np.ndarray:
        values[place(rows) if callable(place) else place] = value(rows) if callable(value) else value
        return values

    return change


def trained(rows: Rows) -> int:
    """A row's first event, which is in its training part."""
    return int(rows.offsets[np.flatnonzero(rows.train_end > 1)[0]])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"train_end": put(3, 1000)}, "its parts do not fit"),
        ({"valid_end": put(3, -1)}, "its parts do not fit"),
        ({"items": put(0, 10_000)}, "an item that the catalogue does not have"),
        ({"items": put(trained, lambda rows: rows.items.max())}, "an item that the catalogue does not have"),  # a cold one
        ({"items": put(0, -1)}, "an item that the catalogue does not have"),
        ({"times": put(trained, lambda rows: rows.times.max())}, "its times are not in order"),
        ({"events": put(5, 2)}, "an event type"),
        ({"times": put(slice(None), lambda rows: rows.times.min())}, "wrong side of a cut"),
        ({"times": put(trained, lambda rows: rows.times.min() - 1)}, "a time outside"),
        ({"numeric": lambda numeric, rows: {"quantity": put(3, np.nan)(numeric["quantity"].copy(), rows)}}, "is not finite"),
        ({"items": put(trained, lambda rows: (rows.items[trained(rows)] + 1) % 20)}, "its counts are not those of the sequences"),
    ],
)
def test_rows_that_break_the_format_are_refused(copy, changes, what):
    inspect(rewritten(copy))
    data = rewritten(copy, **changes)
    with pytest.raises(DataError, match=what):
        inspect(data)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"fingerprint": "0" * 64}, "its manifest says 0000"),
        ({"event_types": ["view", "bought"]}, "have the fingerprint"),
        ({"event_types": ["buy", "view"]}, "have the fingerprint"),
        ({"counts": {"users_without_train_events": 1}}, "users_without_train_events"),
        ({"counts": {"rows": 1}}, "rows of the shards do not add up"),
        ({"counts": {"train_events": 1, "test_events": -1}}, "train_events"),
        ({"counts": {"train_events": 1}}, "events of the parts do not add up"),
        ({"split": {"valid_end": 1}}, "wrong side of a cut|have the fingerprint"),
        ({"split": {"train_end": 10**12}}, "the split's cuts"),
        ({"start_time": -5}, "as start_time"),
        ({"end_time": 3}, "as end_time"),
        ({"cleaning": {"events kept": 1}}, "events kept"),
        ({"config": {"filters": {"min_item_events": 1}}}, "have the fingerprint"),
        ({"config": {"statistics": 3}}, "contradicts itself"),
    ],
)
def test_a_manifest_that_lies_is_refused_though_its_checksum_fits(copy, changes, what):
    def added(told, change):
        if isinstance(change, dict) and isinstance(told, dict):
            return {**told, **{key: added(told[key], value) for key, value in change.items()}}
        number = isinstance(told, int) and isinstance(change, int) and abs(change) < 100
        return told + change if number else change

    inspect(DataSet.open(copy))
    tree = json.loads((copy / "manifest.json").read_text())
    edit_manifest(copy, **{key: added(tree[key], value) for key, value in changes.items()})
    with pytest.raises(DataError, match=what):
        inspect(DataSet.open(copy))


def test_a_catalogue_of_another_size_is_refused(copy):
    tree = json.loads((copy / "manifest.json").read_text())
    daily = {**next(table for table in tree["tables"] if table["name"] == "daily.arrow"), "rows": tree["num_items"] - 1}
    others = [table for table in tree["tables"] if table["name"] != "daily.arrow"]
    edit_manifest(copy, num_items=tree["num_items"] - 1)
    with pytest.raises(DataError, match="tables are missing or of other lengths"):
        DataSet.open(copy)
    edit_manifest(copy, num_items=tree["num_items"] - 1, tables=[*others, daily])
    with pytest.raises(DataError, match="catalogue"):
        inspect(DataSet.open(copy))


# The command


def test_the_command_prints_the_table_and_draws(attnrec, copy):
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    done = attnrec("inspect", copy)
    assert (done.code, [line for line in done.err.splitlines() if not line.startswith("next: ")]) == (0, [])
    assert done.out.endswith(f"{copy / 'inspect.png'}\n")
    assert "training events a user" in done.out
    assert (copy / "inspect.png").read_bytes().startswith(b"\x89PNG")
    DataSet.open(copy)  # is one still


def test_bad_input_is_told(attnrec, copy, tmp_path, shop):
    size = (copy / "sequences" / "part-00000.arrow").stat().st_size
    flip_byte(copy / "sequences" / "part-00000.arrow", size // 2)
    for arguments, part in {
        (copy,): "damaged: bytes ",
        (tmp_path / "nowhere",): "no such data set",
        (tmp_path,): "not a data set",
        (shop.path / "log.csv",): "a data set is a directory",
        (): "DATA_DIR is missing",
        (shop.data, "--outptu", "x.png"): "unknown argument '--outptu'",
    }.items():
        done = attnrec("inspect", *arguments)
        assert (done.code, done.out) == (2, "")
        assert part in done.err
    assert not (copy / "inspect.png").exists()


def test_without_matplotlib_the_table_stays(attnrec, shop, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = attnrec("inspect", shop.data)
    assert done.code == 0
    assert "events a user" in done.out
    assert "attnrec_dist[plots]" in done.err
    assert attnrec("inspect", shop.data, "--output", tmp_path / "x.png").code == 2


# The picture


def picture(found: Inspection, png: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    draw(found, png)
    content = png.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (1320, 840)
    png.unlink()
    assert not list(png.parent.glob(f".{png.name}*"))


def test_pictures_of_all_kinds_come_out(shop, tmp_path):
    picture(inspect(DataSet.open(shop.data)), tmp_path / "a.png")
    picture(inspect(lines(tmp_path, "u a b a c\nv a b d\nw a\n")), tmp_path / "a.png")
    picture(inspect(lines(tmp_path, "u a\n")), tmp_path / "a.png")


@pytest.mark.parametrize("times", [[5], [0, 10**11 - 1], [-(10**11) + 1, 0], [1_300_000_000, 1_300_000_001], [0, 4 * 10**9]])
def test_any_times_can_be_shown(times, tmp_path):
    rows = [{"user": "u", "item": f"i{place}", "time": str(time)} for place, time in enumerate(times)]
    unit = {"columns": {"timestamp": {"name": "time", "unit": "s"}}}
    found = inspect(run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", split=ALL, **unit))
    assert found.time_line.sum() == len(times)
    assert f"{len(times)}" in report(found)
    picture(found, tmp_path / "a.png")


def test_docstring_examples():
    for module in (inspecting, data_report, data_plots):
        result = doctest.testmod(module, extraglobs={"np": np})
        assert result.attempted
        assert result.failed == 0
