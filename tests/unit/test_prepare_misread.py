"""Cells that mean something else than one item or one place are refused; ids that only look so are read."""

from __future__ import annotations

import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from prepare_helpers import contents, run

from attnrec_dist.errors import InputError
from attnrec_dist.prepare.reading.misread import separator

ALL = {"train": 1, "validation": 0, "test": 0}
WORDS = ["RED", "SCARF", "HAT", "LAMP", "BLUE", "PACK", "OF", "12", "SET", "WHITE", "HEART"]


def cells(kind: str, count: int = 60) -> list[str]:
    draw = random.Random(kind)

    def one() -> str:
        ids = [f"i{draw.randrange(30)}" for _ in range(draw.randrange(1, 6))]
        words = [draw.choice(WORDS) for _ in range(draw.randrange(1, 6))]
        return {
            "blanks": " ".join(ids),
            "always three": " ".join(f"i{draw.randrange(30)}" for _ in range(3)),
            "commas": ",".join(ids),
            "commas and blanks": ", ".join(ids),
            "brackets": f"[{', '.join(ids)}]",
            "numpy": f"[{' '.join(map(repr, ids))}]",
            "impressions": " ".join(f"N{draw.randrange(999)}-{draw.randrange(2)}" for _ in ids),
            "words": "|".join(draw.choice(["milk", "bread", "eggs", "tea", "rum"]) for _ in ids),
            "ids": ids[0],
            "titles": " ".join(words),
            "titles with commas": f"{words[0]}, {' '.join(words)}",
            "model numbers": f"{draw.choice(['WH', 'XM'])} {draw.randrange(1000)} {draw.choice('AB')}",
            "item and size": f"{1000 + draw.randrange(50)};{draw.choice('SML')}",
            "item and variant": f"{1000 + draw.randrange(50)}|{draw.randrange(5)}",
            "in brackets": f"({draw.randrange(90)})",
        }[kind]

    return [one() for _ in range(count)]


LISTS = ["blanks", "always three", "commas", "commas and blanks", "brackets", "numpy", "impressions", "words"]


@pytest.mark.parametrize("kind", LISTS)
def test_lists_are_told_from_ids(kind):
    assert separator([(cell, 1) for cell in sorted(set(cells(kind)))]) is not None


@pytest.mark.parametrize(
    "kind", ["ids", "titles", "titles with commas", "model numbers", "item and size", "item and variant", "in brackets"]
)
def test_ids_are_no_lists(kind):
    assert separator([(cell, 1) for cell in sorted(set(cells(kind)))]) is None


def test_what_comes_again_and_again_is_an_id():
    assert separator([(f"{k} {k + 1}", 30) for k in range(50)]) is None
    assert separator([(f"{k} {k + 1}", 1) for k in range(50)]) == " "


def write(path: Path, kind: str) -> Path:
    path.write_text("user,its items,time\n" + "".join(f'u{k % 7},"{cell}",{k}\n' for k, cell in enumerate(cells(kind))))
    return path


@pytest.mark.parametrize("kind", ["blanks", "numpy"])
def test_lists_are_refused_with_the_line_that_takes_them_apart(tmp_path, kind):
    log = write(tmp_path / "log.csv", kind)
    with pytest.raises(InputError) as caught:
        run([log], tmp_path / "data", columns={"item": "its items"}, split=ALL)
    message = str(caught.value)
    assert "log.csv: columns.item 'its items' holds lists of ids" in message
    assert message.startswith("row ")
    assert "\n" not in message
    command = shlex.split(message[message.index("python -c") : message.index("; or, if each")])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, timeout=60)
    data = run([tmp_path / "rows.csv"], tmp_path / "data", columns={"item": "its items"}, split=ALL)
    assert set(data.items()["id"].to_pylist()) <= {f"i{k}" for k in range(30)}
    assert data.manifest.cleaning["rows read"] > 100


def test_lists_may_be_kept_as_ids(tmp_path):
    log = write(tmp_path / "log.csv", "blanks")
    sections = {"columns": {"item": "its items"}, "input": {"files": [str(log)], "item_lists": "keep"}}
    data = run([log], tmp_path / "data", split=ALL, **sections)
    assert set(data.items()["id"].to_pylist()) == set(cells("blanks"))


PLACES = {
    "columns": {"timestamp": {"name": "time", "unit": "place"}},
    "split": {"kind": "leave_one_out"},
    "statistics": {"graph": {"kind": "next"}},
}


@pytest.mark.parametrize("places", [("1", "2", "2"), ("0", "1.2", "1.5"), ("-1", "-1", "0")])
def test_a_place_that_two_events_have(tmp_path, places):
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\n" + "".join(f"u,i{k},{place}\n" for k, place in enumerate(places)) + "v,i1,1\n")
    with pytest.raises(InputError) as caught:
        run([log], tmp_path / "data", **PLACES)
    assert "2 events of user 'u' have place" in str(caught.value)
    assert str(caught.value).count(f" of {log}: column 'time' = ") == 2


def test_places_with_gaps_are_read_and_told_as_they_are(tmp_path):
    from attnrec_dist.prepare.report import summary

    log = tmp_path / "log.csv"
    log.write_text("user,item,time\nu,a,1\nu,b,4\nu,b,4\nu,c,9\nv,a,1\n")
    data = run([log], tmp_path / "data", **PLACES)
    assert {row[0]: [item for item, *_ in row[3]] for row in contents(data)} == {"u": ["a", "b", "c"], "v": ["a"]}
    assert data.manifest.cleaning["duplicate"] == 1
    assert "places 1 to 9" in summary(data.manifest)
