"""Windows against an oracle that walks each user's baskets with lists; and the stored index."""

from __future__ import annotations

import dataclasses
import errno
import os

import numpy as np
import pytest
from fake_data import EVENT_TYPES, FakeData, Row, baskets_of, codes_of, configs, leave_one_out, time_split
from hypothesis import given, settings
from hypothesis import strategies as st

from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.windows import build_index, open_index, target_codes, windows_of
from attnrec_dist.errors import ConfigError, DataError, StorageError
from attnrec_dist.settings import build


def plain_windows(row: Row, config: DataConfig) -> list[tuple[int, int, int, int, int]]:
    """(first token, token after the input, token after the last target basket, first query's token, queries)."""
    events = row.events[: row.train_end]
    baskets = baskets_of(events, config.basket)
    wanted = codes_of(config)
    queries = [k for k in range(len(baskets) - 1) if any(events[place][2] in wanted for place in baskets[k + 1])]

    def tokens(first: int, last: int) -> int:
        return sum(map(len, baskets[first : last + 1]))

    def window(first: int, chosen: list[int]) -> tuple[int, int, int, int, int]:
        final = chosen[-1]
        if config.targets == "last":
            chosen = [final]
        return baskets[first][0], baskets[final][-1] + 1, baskets[final + 1][-1] + 1, baskets[chosen[0]][0], len(chosen)

    def earliest(query: int) -> int:
        """The first basket of those that fit together with the query's own."""
        first = query
        while first > 0 and tokens(first - 1, query) <= config.max_length:
            first -= 1
        return first

    opening = []
    if config.empty_history and baskets and any(events[place][2] in wanted for place in baskets[0]):
        opening = [(0, 0, len(baskets[0]), 0, 1)]
    if not queries:
        return opening
    if config.targets == "prefixes":
        oldest = earliest(queries[-1]) if config.windows == "last" else 0
        return opening + [window(earliest(k), [k]) for k in queries if k >= oldest]
    if tokens(0, queries[-1]) <= config.max_length:
        return [window(0, queries)]
    if config.windows == "last":
        first = earliest(queries[-1])
        return [window(first, [k for k in queries if k >= first])]
    result = []
    while queries:
        first = queries[0]
        while (
            first > 0
            and tokens(first - 1, queries[0] - 1) <= config.context_tokens
            and tokens(first - 1, queries[0]) <= config.max_length
        ):
            first -= 1
        fitting = [k for k in queries if tokens(first, k) <= config.max_length] or queries[:1]
        result.append(window(first, fitting))
        queries = queries[len(fitting) :]
    return result


@settings(deadline=None, max_examples=250)
@given(time_split(max_events=40) | leave_one_out(), configs())
def test_windows_are_what_a_walk_over_lists_finds(data, config):
    rows, windows = windows_of(data.rows(np.arange(data.num_rows)), config, target_codes(config, EVENT_TYPES))
    expected = [(index, window) for index, row in enumerate(data.content) for window in plain_windows(row, config)]
    assert list(zip(rows.tolist(), map(tuple, windows.tolist()), strict=True)) == expected


def test_an_example_by_hand():
    events = [(0, time, 0) for time in (1, 1, 2, 3, 3, 3, 4, 5, 5)]  # baskets of 2, 1, 3, 1, 2
    data = FakeData([Row(events, 9, 9)])

    def cut(**keys) -> list[list[int]]:
        return windows_of(data.rows(np.arange(1)), DataConfig(path="fake", **keys), None)[1].tolist()

    assert cut(max_length=7) == [[0, 7, 9, 0, 4]]
    # 2 + 1 fit in 4; basket 3 of three has room for context of one token; the last query sees one basket of three before it
    assert cut(max_length=4, context=3) == [[0, 3, 6, 0, 2], [2, 6, 7, 3, 1], [3, 7, 9, 6, 1]]
    assert cut(max_length=4, context=0) == [[0, 3, 6, 0, 2], [3, 7, 9, 3, 2]]
    late = FakeData([Row([(0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 4, 2)], 4, 4)])  # what fits is shown whole, whatever the context
    config = DataConfig(path="fake", max_length=3, context=0, target_events=["buy"])
    assert windows_of(late.rows(np.arange(1)), config, target_codes(config, EVENT_TYPES))[1].tolist() == [[0, 3, 4, 2, 1]]
    assert cut(max_length=4, windows="last") == [[3, 7, 9, 3, 2]]
    assert cut(max_length=4, context=3, targets="last") == [[0, 3, 6, 2, 1], [2, 6, 7, 3, 1], [3, 7, 9, 6, 1]]
    assert cut(max_length=7, targets="last") == [[0, 7, 9, 6, 1]]
    assert cut(max_length=4, targets="prefixes") == [[0, 2, 3, 0, 1], [0, 3, 6, 2, 1], [2, 6, 7, 3, 1], [3, 7, 9, 6, 1]]
    assert cut(max_length=4, targets="prefixes", windows="last") == [[2, 6, 7, 3, 1], [3, 7, 9, 6, 1]]
    assert cut(max_length=2, targets="prefixes")[2] == [3, 6, 7, 3, 1]  # thinned to two of three tokens
    assert cut(max_length=2, context=1)[2] == [3, 6, 7, 3, 1]  # a basket longer than a window has one of its own


@settings(deadline=None, max_examples=40)
@given(data=time_split(), config=configs())
def test_the_stored_index_numbers_samples_row_by_row(data, config, tmp_path_factory):
    directory = tmp_path_factory.mktemp("index")
    expected = [plain_windows(row, config) for row in data.content]
    if not any(expected):
        with pytest.raises(DataError, match="nothing to train on"):
            build_index(data, config, directory)
        return
    build_index(data, config, directory)
    index = open_index(data, config, directory)
    assert index.row_windows.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert [tuple(window) for window in index.windows.tolist()] == [window for row in expected for window in row]
    samples = np.arange(-1, len(index))  # a stand-in, then all
    rows = [row for row, windows in enumerate(expected) for _ in windows]
    assert index.rows_of(samples[1:]).tolist() == rows
    flat = [window for row in expected for window in row]
    assert index.lengths(samples).tolist() == [1] + [min(max(1, window[1] - window[0]), config.max_length) for window in flat]
    assert index.queries(samples).tolist() == [0] + [window[4] for window in flat]


@settings(deadline=None, max_examples=60)
@given(configs(), configs())
def test_configs_that_differ_in_samples_have_different_keys(one, other):
    keys = ("basket", "target_events", "max_length", "windows", "context_tokens", "targets", "empty_history")
    same = all(getattr(one, key) == getattr(other, key) for key in keys)
    assert (one.samples_key() == other.samples_key()) == same
    assert one.samples_key() == one.model_copy(update={"workers": 3, "block_size": 7, "path": "elsewhere"}).samples_key()


def test_the_key_of_all_targets_is_the_one_of_before_there_were_others():
    assert DataConfig(path="fake", max_length=7, context=2).samples_key() == "ce257d8544238acf"


DATA = FakeData([Row([(0, 1, 0), (1, 2, 2), (2, 3, 2)], 3, 3)])


@pytest.mark.parametrize("bytes_left", [0, 8, 11])
@pytest.mark.parametrize("which", ["*.rows.bin", "*.windows.bin"])
def test_a_truncated_index_is_built_again(which, bytes_left, tmp_path):
    config = DataConfig(path="fake", max_length=1)
    build_index(DATA, config, tmp_path)
    (file,) = tmp_path.glob(which)
    whole = file.read_bytes()
    assert len(whole) > bytes_left
    file.write_bytes(whole[:bytes_left])
    assert open_index(DATA, config, tmp_path) is None
    build_index(DATA, config, tmp_path)
    assert len(open_index(DATA, config, tmp_path)) == 2
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("which", ["*.rows.bin", "*.windows.bin", "*.json"])
def test_one_flipped_bit_of_an_index_is_seen_and_the_index_built_again(which, tmp_path):
    config = DataConfig(path="fake", max_length=1)
    assert build_index(DATA, config, tmp_path) == ""
    (file,) = tmp_path.glob(which)
    whole = file.read_bytes()
    for place in range(len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        assert open_index(DATA, config, tmp_path) is None, place
    assert "built anew" in build_index(DATA, config, tmp_path)
    assert file.read_bytes() == whole
    assert build_index(DATA, config, tmp_path) == ""


@pytest.mark.parametrize("which", ["*.rows.bin", "*.windows.bin", "*.json"])
def test_a_fifo_in_place_of_an_index_does_not_hang(which, tmp_path):
    config = DataConfig(path="fake", max_length=1)
    build_index(DATA, config, tmp_path)
    (file,) = tmp_path.glob(which)
    file.unlink()
    os.mkfifo(file)
    assert open_index(DATA, config, tmp_path) is None
    build_index(DATA, config, tmp_path)
    assert open_index(DATA, config, tmp_path) is not None


def test_an_index_belongs_to_its_data_and_its_keys(tmp_path):
    build_index(DATA, DataConfig(path="fake"), tmp_path)
    assert open_index(DATA, DataConfig(path="fake", max_length=3), tmp_path) is None

    class Other(FakeData):
        @property
        def manifest(self):
            manifest = super().manifest
            manifest.fingerprint = "f" * 64
            return manifest

    assert open_index(Other(DATA.content), DataConfig(path="fake"), tmp_path) is None


def test_a_full_disk_leaves_no_index(tmp_path, monkeypatch):
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match="free some space"):
        build_index(DATA, DataConfig(path="fake"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_target_event_is_named_with_those_that_exist():
    with pytest.raises(DataError, match="purchase is not in the data set, which has view, cart, buy"):
        target_codes(DataConfig(path="fake", target_events=["purchase"]), EVENT_TYPES)
    with pytest.raises(DataError, match="no event types"):
        target_codes(DataConfig(path="fake", target_events=["buy"]), [])


@given(st.integers(1, 20), st.integers(0, 40))
def test_context_leaves_room(max_length, context):
    tree = {"path": "fake", "max_length": max_length, "context": context}
    if context < max_length:
        assert build(DataConfig, tree, "t").context_tokens == context
    else:
        with pytest.raises(ConfigError, match="leaves no room"):
            build(DataConfig, tree, "t")
    with pytest.raises(ConfigError, match="context: "):
        build(DataConfig, tree | {"targets": "prefixes"}, "t")


@pytest.mark.parametrize("keys", [{}, {"targets": "last"}, {"targets": "prefixes", "windows": "last"}])
def test_an_empty_history_is_a_prefix(keys):
    with pytest.raises(ConfigError, match="empty_history: needs targets prefixes and windows all"):
        build(DataConfig, {"path": "fake", "empty_history": True, **keys}, "t")


def test_rows_without_training_tokens_are_no_trouble():
    data = FakeData([Row([], 0, 0), Row([(7, 1, 0)], 0, 1), DATA.content[0], Row([(0, 1, 0)], 1, 1)])
    rows, windows = windows_of(data.rows(np.arange(4)), DataConfig(path="fake"), None)
    assert rows.tolist() == [2]
    assert windows.tolist() == [[0, 2, 3, 0, 2]]
    nothing = dataclasses.replace(data, content=data.content[:2])
    assert len(windows_of(nothing.rows(np.arange(2)), DataConfig(path="fake"), None)[0]) == 0
