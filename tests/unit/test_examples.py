"""Examples on disk: what is written is read back, by number, in workers, and damage is noticed."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pyarrow as pa
import pytest
from prepare_helpers import edit_manifest, flip_byte
from tiny_examples import WORDS, add_examples

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.example_format import EXAMPLE_PARTS, FIELD_PREFIX, LABEL_PREFIX
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.errors import ConfigError, DataError, FaultError
from attnrec_dist.inspection.report import report
from attnrec_dist.inspection.scan import inspect
from attnrec_dist.prepare.examples import files


@pytest.fixture
def folder(shop, tmp_path):
    """A copy of the tiny shop's data set, without examples yet."""
    return shutil.copytree(shop.data, tmp_path / "data")


def everything(part):
    return {name: part.column(name) for name in part.columns}


def test_examples_are_read_back_in_any_order(folder, monkeypatch):
    monkeypatch.setattr(files, "ROWS_PER_BATCH", 16)
    monkeypatch.setattr(files, "BATCHES_PER_SHARD", 2)
    data = add_examples(folder, tasks=("label", "cart"))
    assert len(data.manifest.examples.shards["train"]) > 2
    for name in EXAMPLE_PARTS:
        part = ExampleSet.open(data, name)
        whole = everything(part)
        assert len(part) == len(whole["user"]) > 16
        ids = np.random.default_rng(1).integers(0, len(part), 50)
        found = part.take(ids)
        assert (found.users.dtype, found.candidates.dtype, found.times.dtype) == (np.int64, np.int32, np.int64)
        np.testing.assert_array_equal(found.users, whole["user"][ids])
        np.testing.assert_array_equal(found.candidates, whole["candidate"][ids])
        np.testing.assert_array_equal(found.times, whole["time"][ids])
        np.testing.assert_array_equal(found.history, part.lengths(ids))
        for task, labels in found.labels.items():
            np.testing.assert_array_equal(labels, whole[LABEL_PREFIX + task][ids])
        for field, values in found.fields.items():
            np.testing.assert_array_equal(values, whole[FIELD_PREFIX + field][ids])
        order = np.lexsort([whole["candidate"], whole["time"], whole["user"]])
        np.testing.assert_array_equal(order, np.arange(len(part)))
        assert len(part.take(np.empty(0, np.int64))) == 0
        with pytest.raises(IndexError, match=f"of {len(part)}"):
            part.take(np.array([len(part)]))


def test_the_manifest_tells_counts_and_statistics_of_the_training_part(folder, monkeypatch):
    monkeypatch.setattr(files, "ROWS_PER_BATCH", 16)
    data = add_examples(folder, tasks=("label", "cart"))
    spec = data.manifest.examples
    for name in EXAMPLE_PARTS:
        part = everything(ExampleSet.open(data, name))
        assert spec.counts[name] == len(part["user"])
        for task in spec.tasks:
            assert spec.positives[task][name] == (part[LABEL_PREFIX + task] == 1).sum()
            assert spec.known[task][name] == (part[LABEL_PREFIX + task] >= 0).sum()
        assert spec.field("gap").missing[name] == np.isnan(part["field.gap"]).sum() > 0
        assert spec.field("colour").missing[name] == (part["field.colour"] == 1).sum()
        assert spec.field("colour").unseen[name] == (part["field.colour"] == 0).sum()
    train = ExampleSet.open(data, "train")
    for field, change in (("signal", lambda x: x), ("count", np.log1p), ("gap", lambda x: x)):
        values = train.column(f"field.{field}").astype(np.float64)
        values = change(values[~np.isnan(values)])
        assert spec.field(field).mean == pytest.approx(values.mean(), rel=1e-9)
        assert spec.field(field).std == pytest.approx(values.std(), rel=1e-9)
        assert 0 < len(spec.field(field).quantiles) <= 63
    assert spec.field("colour").mean is None
    table = data.vocabulary().to_pylist()
    assert [(row["code"], row["value"]) for row in table if row["field"] == "colour"] == list(enumerate(WORDS["colour"], 2))


def test_batches_leave_no_trace_but_values_do(folder, tmp_path, monkeypatch):
    copies = [shutil.copytree(folder, tmp_path / name) for name in "abc"]
    first = add_examples(copies[0]).manifest.fingerprint
    monkeypatch.setattr(files, "ROWS_PER_BATCH", 16)
    assert add_examples(copies[1]).manifest.fingerprint == first
    assert add_examples(copies[2], seed=1).manifest.fingerprint != first


def test_inspect_counts_examples_and_checks_them(folder):
    data = add_examples(folder, tasks=("label", "cart"))
    found = inspect(data)
    for name in EXAMPLE_PARTS:
        part = everything(ExampleSet.open(data, name))
        counted = found.examples[name]
        assert (counted.examples, counted.users) == (len(part["user"]), len(set(part["user"].tolist())))
        assert counted.history == pytest.approx(part["history"].mean())
        assert counted.without_history == (part["history"] == 0).sum()
        assert counted.cold == (part["candidate"] >= data.manifest.num_items).sum()
    text = report(found)
    spec = data.manifest.examples
    share = spec.positives["cart"]["test"] / spec.known["cart"]["test"]
    assert f"{spec.positives['cart']['test']:,} ({share:.2%})" in text
    assert "cart: says nothing of" in text
    assert f"{spec.field('gap').missing['test'] / spec.counts['test']:.1%}" in text


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("user", -1, "out of order"),
        ("candidate", 10**6, "of an item that there is not"),
        ("time", 2 * 10**9, "on the wrong side of a cut"),
        ("label.label", 2, "with a label label that is not -1, 0 or 1"),
        ("label.label", -1, "labels label of the train part are not as counted"),
        ("field.colour", 5, "with a colour that its field does not have"),
        ("field.signal", np.inf, "with a signal that its field does not have"),
    ],
)
def test_inspect_finds_examples_that_are_not_as_promised(folder, column, value, what):
    """Damage with a checksum that fits: written by another program, say."""
    data = add_examples(folder)
    record = data.manifest.examples.shards["train"][0]
    file = folder / "examples" / record.name
    with pa.OSFile(str(file)) as source:
        table = pa.ipc.open_stream(source).read_all()
    values = table[column].to_numpy().copy()
    values[-1] = value
    place = table.column_names.index(column)
    table = table.set_column(place, table.schema.field(place), pa.array(values))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    spec = data.manifest.examples
    shards = {**spec.shards, "train": [files.record_of(file, record.rows)]}
    changed = data.manifest.model_copy(update={"examples": spec.model_copy(update={"shards": shards})})
    edit_manifest(folder, **changed.model_dump(mode="json"))
    with pytest.raises(DataError, match=what):
        inspect(DataSet.open(folder))


def test_a_worker_maps_the_files_itself(folder):
    part = ExampleSet.open(add_examples(folder), "train")
    ids = np.arange(len(part))
    before = part.take(ids)
    sent = pickle.dumps(part)
    assert len(sent) < 20_000
    np.testing.assert_array_equal(pickle.loads(sent).take(ids).fields["signal"], before.fields["signal"])


def test_damage_is_noticed(folder):
    data = add_examples(folder)
    file = folder / "examples" / data.manifest.examples.shards["test"][0].name
    flip_byte(file, file.stat().st_size // 2)
    with pytest.raises(DataError, match=r"test-00000\.arrow: damaged"):
        DataSet.open(folder)


def test_a_data_set_without_examples_says_so(folder):
    data = DataSet.open(folder)
    assert data.manifest.examples is None
    with pytest.raises(ConfigError, match="has no labelled examples; add `label` and `features`"):
        ExampleSet.open(data, "train")


def test_examples_out_of_order_are_a_fault(folder):
    data = add_examples(folder)
    batches = ExampleSet.open(data, "train")
    shape = files.example_schema(batches.spec.tasks, batches.spec.fields)
    wrong = files.pa.record_batch([batches.column(name)[::-1] for name in shape.names], schema=shape)
    with pytest.raises(FaultError, match="out of order"):
        list(files.in_order([wrong]))
