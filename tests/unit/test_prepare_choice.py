"""What is learnt from and what is held out: busy customers, lists of ids, last baskets, baskets by a gap."""

from __future__ import annotations

import collections

import pytest
from prepare_helpers import contents, run, write_csv

from attnrec_dist.errors import ConfigError, InputError

FINGERPRINT = "e35a34a46129c6d69257cdd71baaf5155a5e4b97769e39ba56e4d0dedaf9d41d"  # of shop() without any of the keys below


def event(user: str, item: str, time: int) -> dict[str, str]:
    return {"user": user, "item": item, "time": str(time)}


def events_of(data):
    """{user: [item, ...]} over all parts."""
    return {user: [token[0] for token in tokens] for user, _, _, tokens in contents(data)}


def shop(busy: int = 30):
    """Ten users with eight events each, and one with `busy` events before the others' last."""
    rows = [event(f"u{user}", f"i{(user + place) % 7}", 100 * place + user) for user in range(10) for place in range(8)]
    return rows + [event("bot", f"i{place % 7}", place) for place in range(busy)]


@pytest.mark.parametrize("split", [{}, {"kind": "leave_one_out"}])
def test_users_with_too_many_events_are_left_out_of_all_parts_and_counted(tmp_path, split):
    rows = shop() + [event("bot", "i1", 5000)]  # in the test part, where the split is in time
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", filters={"max_user_events": 29}, split=split)
    assert sorted(events_of(data)) == [f"u{user}" for user in range(10)]
    assert data.manifest.cleaning["above max_user_events"] == 31
    assert data.manifest.cleaning["events kept"] == 80
    kept = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "kept", filters={"max_user_events": 31}, split=split)
    assert "bot" in events_of(kept)


def test_split_in_time_later_events_do_not_count_against_a_user(tmp_path):
    rows = shop(busy=0) + [event("late", f"i{place % 7}", 800 + place) for place in range(8)]
    cuts = {"validation_from": "1970-01-01T00:13", "test_from": "1970-01-01T00:13:24"}  # 780, 804
    data = run([write_csv(tmp_path / "log.csv", rows)], tmp_path / "data", filters={"max_user_events": 8}, split=cuts)
    assert len(events_of(data)["late"]) == 8
    assert data.manifest.cleaning["above max_user_events"] == 0


def test_busy_users_go_before_rare_items_are_looked_for(tmp_path):
    """Only the bot shows x, so x is rare without him."""
    rows = shop() + [event("bot", "x", 900 + place) for place in range(5)] + [event("u1", "x", 250)]
    filters = {"max_user_events": 20, "min_item_events": 2}
    data = run(
        [write_csv(tmp_path / "log.csv", rows)],
        tmp_path / "data",
        filters=filters,
        split={"train": 1, "validation": 0, "test": 0},
    )
    assert "x" not in data.items()["id"].to_pylist()
    assert data.manifest.cleaning["below min_item_events or min_user_events"] == 1


def test_a_limit_that_nobody_keeps_is_refused_with_the_key(tmp_path):
    with pytest.raises(InputError, match="raise filters.max_user_events 1"):
        run([write_csv(tmp_path / "log.csv", shop())], tmp_path / "data", filters={"max_user_events": 1})
    with pytest.raises(ConfigError, match="max_user_events 2 is below min_user_events 3"):
        run([tmp_path / "log.csv"], tmp_path / "data", filters={"max_user_events": 2, "min_user_events": 3})


def test_keys_that_came_later_leave_the_fingerprint_alone_at_their_defaults(tmp_path):
    """The number was computed before the keys were there."""
    data = run([write_csv(tmp_path / "log.csv", shop())], tmp_path / "data")
    assert data.manifest.fingerprint == FINGERPRINT
    assert sorted(data.manifest.config["filters"]) == ["drop_duplicates", "min_item_events", "min_user_events", "where"]
    limited = run([tmp_path / "log.csv"], tmp_path / "limited", filters={"max_user_events": 1000})
    assert limited.manifest.fingerprint != FINGERPRINT
    assert collections.Counter(map(str, contents(limited))) == collections.Counter(map(str, contents(data)))
