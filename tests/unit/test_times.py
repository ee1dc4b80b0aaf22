"""Times as logs and people write them: read right, or refused with what to type. One rule, wherever they enter."""

from __future__ import annotations

import datetime as dt
import doctest
import zoneinfo

import numpy as np
import pyarrow as pa
import pytest
from prepare_helpers import config_of, run, write_csv

from attnrec_dist.errors import ConfigError, InputError
from attnrec_dist.prepare.config.sections import moment
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.times import read_times as reading
from attnrec_dist.times import timestamps
from attnrec_dist.times.read_times import check_format, read_times
from attnrec_dist.times.timestamps import TimeRule

ALL = {"train": 1, "validation": 0, "test": 0}
TEN = 1_772_359_200  # 2026-03-01 10:00 UTC


def seconds(values, **rule) -> list[float]:
    return (read_times(values, TimeRule(**rule), "times") / 1e6).tolist()


@pytest.mark.parametrize(
    ("written", "second"),
    [
        ("2026-03-01 10:00:00 UTC", TEN),
        ("2026-03-01 10:00:00.25 UTC", TEN + 0.25),
        ("2026-03-01 10:00:00 GMT", TEN),
        ("2026-03-01 10:00:00 +0000 UTC", TEN),
        ("2026-03-01 15:30:00.5 +0530 IST", TEN + 0.5),
        ("2026-03-01T11:00:00+01:00[Europe/Paris]", TEN),
        ("2026/03/01 10:00", TEN),
        ("2026/03/01", TEN - 36_000),
        ("1772359200000000000", TEN),
        ("1772359200123456789", TEN + 0.123456),
        ("1.7723592E9", TEN),
        ("1.7723592e+18", TEN),
        ("1.77235920025e+09", TEN + 0.25),
        ("1772359200.123456", TEN + 0.123456),
        ("-1.5", -1.5),
        (".5", 0.5),
    ],
)
def test_what_is_read_as_it_is(tmp_path, written, second):
    """Of these, `prepare` refused every one with UTC, slashes, nanoseconds or an exponent."""
    assert seconds([written]) == [second]
    assert seconds([written], time_zone="Asia/Kolkata") == [second - (19_800 if "/" in written and "[" not in written else 0)]
    file = write_csv(tmp_path / "log.csv", [{"user": "u", "item": "i", "time": written}])
    assert run([file], tmp_path / "data", split=ALL).rows(np.array([0])).times.tolist() == [second // 1]


@pytest.mark.parametrize(
    ("pattern", "written", "second"),
    [
        ("%d/%b/%Y:%H:%M:%S %z", "01/Mar/2026:15:30:00 +0530", TEN),
        ("%Y-%m-%dT%H:%M:%S%z", "2026-03-01T10:00:00Z", TEN),
        ("%Y-%m-%dT%H:%M:%SZ", "2026-03-01T10:00:00Z", TEN),
        ("%Y-%m-%d %H:%M:%S UTC", "2026-03-01 10:00:00 UTC", TEN),
        ("%Y-%m-%d %H:%M:%S %Z", "2026-03-01 10:00:00 UTC", TEN),
        ("%a %b %d %H:%M:%S %z %Y", "Sun Mar 01 10:00:00 +0000 2026", TEN),
        ("%d.%m.%Y %H:%M:%S.%f", "01.03.2026 15:30:00.5", TEN + 0.5),
        ("%d.%m.%Y %H:%M:%S.%f", "01.03.2026 15:30:00", TEN),
        ("%d.%m.%Y %H:%M:%S.%f", "01.03.2026 15:30:00.123456789", TEN + 0.123457),
        ("%m/%d/%Y %I:%M %p", "3/1/2026 3:30 pm", TEN),
        ("%Y-%m-%d %H:%M:%S.%n%z", "2026-03-01 10:00:00.123456000+00:00", TEN + 0.123456),
        ("%Y%m%d", "20260301", TEN - 36_000 - 19_800),
    ],
)
def test_an_offset_in_the_text_wins_over_the_time_zone(tmp_path, pattern, written, second):
    """The zone used to be taken off a second time where the format has %z."""
    zone = {"format": pattern, "time_zone": "Asia/Kolkata"}
    assert seconds([written], **zone) == [second]
    file = write_csv(tmp_path / "log.csv", [{"user": "u", "item": "i", "time": written}])
    data = run([file], tmp_path / "data", columns={"timestamp": {"name": "time", **zone}}, split=ALL)
    assert data.rows(np.array([0])).times.tolist() == [second // 1]


@pytest.mark.parametrize("zone", ["Europe/London", "America/New_York"])
def test_a_local_time_that_is_skipped_or_repeated_is_the_later_of_two(zone):
    place, day = zoneinfo.ZoneInfo(zone), dt.datetime(2026, 1, 1)
    found = [day + dt.timedelta(minutes=30 * step) for step in range(365 * 48)]
    texts = [f"{each:%Y-%m-%d %H:%M}" for each in found]
    later = [max(each.replace(tzinfo=place, fold=fold).timestamp() for fold in (0, 1)) for each in found]
    assert seconds(texts, time_zone=zone) == later
    odd = [
        text
        for text, each in zip(texts, found)
        if len({each.replace(tzinfo=place, fold=fold).timestamp() for fold in (0, 1)}) == 2
    ]
    assert len(odd) == 4
    assert [moment(text, zone) for text in odd] == seconds(odd, time_zone=zone)


def refusal(tmp_path, times: list[str], **column) -> str:
    """What `prepare` says to these."""
    rows = [{"user": f"u{place % 3}", "item": f"i{place}", "time": time} for place, time in enumerate(times)]
    name = column.pop("column", "time")
    file = write_csv(tmp_path / "log.csv", [{**row, name: row["time"]} for row in rows], columns=["user", "item", name])
    with pytest.raises((InputError, ConfigError)) as caught:
        run([file], tmp_path / "data", columns={"timestamp": {"name": name, **column}}, split=ALL)
    assert not (tmp_path / "data").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (["31/03/2026"], "set columns.timestamp.format: '%d/%m/%Y'"),
        (["01/03/2026", "31/03/2026"], "set columns.timestamp.format: '%d/%m/%Y'"),
        (["01/03/2026", "02/03/2026"], "format: '%d/%m/%Y' or '%m/%d/%Y', whichever is meant"),
        (["20260301 101500"], "format: '%Y%m%d %H%M%S'"),
        (["20260301T101500Z"], "format: '%Y%m%dT%H%M%SZ'"),
        (["20260301"], "holds dates such as 20260301, no unix times: set columns.timestamp.format: '%Y%m%d'"),
        (["20260301101500"], "format: '%Y%m%d%H%M%S'"),
        (["Sun Mar 01 10:00:00 +0000 2026"], "format: '%a %b %d %H:%M:%S %z %Y'"),
        (["Sun Mar  1 10:00:00 UTC 2026"], "format: '%a %b %d %H:%M:%S UTC %Y'"),
        (["13/Mar/2011:21:02:24 +0530"], "format: '%d/%b/%Y:%H:%M:%S %z'"),
        (["March 1, 2026"], "format: '%B %d, %Y'"),
        (["01-Mar-26 3:05 pm"], "format: '%d-%b-%y %I:%M %p'"),
        (["2026-03-01 10:00:00 AM"], "format: '%Y-%m-%d %I:%M:%S %p'"),
        (["2026-03-01 10:00:00 CET"], "format: '%Y-%m-%d %H:%M:%S %Z'"),
        (["31.12.2025 10:00:00.123"], "format: '%d.%m.%Y %H:%M:%S.%f'"),
        (["2026-03-01-10.00.00.000000"], "format: '%Y-%m-%d-%H.%M.%S.%f'"),
        (["46082.4167", "46083"], "Excel dates"),
        (["10:00", "9:30 pm"], "put date and time into one column"),
        ([" 1600000000"], "remove these"),
        (
            ["yesterday"],
            "read are unix times and ISO 8601 such as 2026-03-01 10:00:00+01:00 (columns.timestamp.unit), others by columns",
        ),
    ],
)
def test_what_is_not_read_is_refused_with_what_to_type(tmp_path, times, told):
    said = refusal(tmp_path, times)
    assert told in said
    for pattern in reading.formats_that_read(times):  # a line that can be typed: it reads them all
        assert len(seconds(times, format=pattern)) == len(times)


def test_a_unit_or_format_that_does_not_fit_is_named(tmp_path):
    assert "they are unix ms, which are read without columns.timestamp.unit" in refusal(tmp_path, ["1772359200000"], unit="s")
    assert "without columns.timestamp.format: leave it out" in refusal(tmp_path, ["2026-03-01"], format="%d/%m/%Y")
    assert "columns.timestamp.unit: s" in refusal(tmp_path, ["20260301", "20260302"])
    day = refusal(tmp_path, [str(day) for day in range(1, 712)], column="DAY")
    assert "holds numbers of days or the like" in day
    assert "and clock to the column of the time of day" in day
    assert seconds(["20260301"], unit="s") == seconds(["20260301"], unit="s", else_auto=True) == [20260301]
    assert seconds(["01/03/2026", TEN], format="%d/%m/%Y", else_auto=True) == [TEN - 36_000, TEN]
    with pytest.raises(InputError, match="found dates such as 20260301"):
        seconds(["20260301"], format="%d/%m/%Y", else_auto=True)


@pytest.mark.parametrize("pattern", ["%s", "%Q", "%", "%E", "%H:%M", "%d/%m", "%A"])
def test_formats_that_read_no_date_are_refused_at_once(pattern):
    with pytest.raises(ValueError, match=r"unix times need no format|is unknown|reads no date"):
        check_format(pattern)
    with pytest.raises(ConfigError, match=r"columns\.timestamp\.format"):
        config_of([], columns={"timestamp": {"name": "time", "format": pattern}}, input={"files": ["x.csv"]})


def test_a_mixture_is_counted_over_all_rows(tmp_path):
    """A few milliseconds among seconds stand wherever they like: all rows are counted."""
    times = [str(TEN + place) for place in range(990)] + [f"{TEN}000", *(f"2026-03-01 10:00:0{second}" for second in range(9))]
    rows = [{"user": f"u{place % 7}", "item": f"i{place % 5}", "time": time} for place, time in enumerate(times)]
    said: list[str] = []
    prepare(config_of([write_csv(tmp_path / "log.csv", rows)], split=ALL), tmp_path, tmp_path / "data", said.append)
    (told,) = [each for each in said if "mixes" in each]
    assert "990 unix s, 9 local times, 1 unix ms" in told
    said.clear()
    prepare(config_of([write_csv(tmp_path / "log.csv", rows[:990])], split=ALL), tmp_path, tmp_path / "data", said.append)
    assert not [each for each in said if "mixes" in each]


def test_any_column_of_arrow_is_read_by_the_same_rule():
    moments = [dt.datetime(2026, 3, 1, 10, tzinfo=dt.UTC)]
    for kind in (pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("ns"), pa.timestamp("us", "Asia/Kolkata")):
        assert seconds(pa.chunked_array([pa.array(moments).cast(kind)])) == [TEN]
    for values in ([TEN], [TEN * 10**9], [float(TEN)], ["2026-03-01 10:00:00"], [np.datetime64("2026-03-01T10:00").item()]):
        assert seconds(pa.chunked_array([pa.array(values)])) == [TEN]
    assert seconds(pa.chunked_array([pa.array([dt.date(2026, 3, 1)])])) == [TEN - 36_000]
    assert seconds([]) == []
    with pytest.raises(InputError, match=r"times: 1 of 2 is no time: no\. 2 is missing; fill it in"):
        seconds(pa.chunked_array([pa.array([1, None])]))


def test_the_rule_agrees_with_python():
    """Random moments in every form that Python can write, read back to the microsecond."""
    draw = np.random.default_rng(0)
    us = draw.integers(-(10**15), 4 * 10**15, 400)
    moments = [dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=int(each)) for each in us]
    zone = dt.timezone(dt.timedelta(hours=-3, minutes=-30))
    for texts in (moments, [each.isoformat() for each in moments], [each.astimezone(zone).isoformat(" ") for each in moments]):
        assert read_times(texts, TimeRule(), "times").tolist() == us.tolist()
    pattern = "%d.%m.%Y %H:%M:%S.%f %z"
    texts = [f"{each.astimezone(zone):{pattern}}" for each in moments]
    assert read_times(texts, TimeRule(format=pattern, time_zone="Asia/Tokyo"), "times").tolist() == us.tolist()


def test_examples():
    assert doctest.testmod(reading).failed == 0
    assert doctest.testmod(timestamps).failed == 0
