"""What docs/public-formats.md says takes a log takes a tiny file in its own format: first its shell lines, then its YAML."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prepare_helpers import contents
from public_logs import LOGS, write_workbook

from attnrec_dist.data.dataset import DataSet
from attnrec_dist.errors import AttnrecError
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.settings import build, parse_yaml

PAGE = (Path(__file__).parents[2] / "docs" / "public-formats.md").read_text(encoding="utf-8")
SECTIONS = {
    name: (shell or "", yaml)
    for name, shell, yaml in re.findall(
        r"^## ([^\n]+)\n\n(?:```sh\n(.*?)```\n\n)?```yaml\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL
    )
}
AS_THEY_ARE = [name for name, (shell, _) in SECTIONS.items() if not shell]


def write(path: Path, content: str | bytes, crlf: bool = False) -> None:
    data = content.encode() if isinstance(content, str) else content
    data = data.replace(b"\n", b"\r\n") if crlf else data
    if path.suffix == ".xlsx":
        write_workbook(path)
    else:
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def converted(tmp_path: Path, shell: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", shell], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def prepared(tmp_path: Path, yaml: str) -> DataSet:
    tree = parse_yaml(yaml, "docs") | {"output": {"dir": "d"}, "engine": {"memory_limit": "200MB", "threads": 1}}
    if tree["input"].get("format") != "user_items":
        tree.setdefault("split", {"train": 1, "validation": 0, "test": 0})
    prepare(build(PrepareConfig, tree, "docs"), tmp_path, tmp_path / "d")
    return DataSet.open(tmp_path / "d")


def check(tmp_path: Path, name: str, crlf: bool = False) -> DataSet:
    shell, yaml = SECTIONS[name]
    files, expected = LOGS[name]
    for file, content in files.items():
        write(tmp_path / file, content, crlf)
    if shell:
        converted(tmp_path, shell)
    data = prepared(tmp_path, yaml)
    assert expected in [(user, *event[:2]) for user, *_, events in contents(data) for event in events]
    if "items" in parse_yaml(yaml, "docs"):
        assert any(data.items()["title"].to_pylist())
    return data


@pytest.mark.parametrize("name", SECTIONS)
def test_a_public_log_is_taken_as_the_page_says(tmp_path, name):
    if "openpyxl" in SECTIONS[name][0]:
        pytest.importorskip("openpyxl")
    check(tmp_path, name)


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_a_log_with_line_ends_of_windows_is_taken_too(tmp_path, name):
    check(tmp_path, name, crlf=True)


def test_every_log_is_on_the_page_and_tested():
    linked = re.findall(r"^\| \[(.*?)\]\(#", PAGE, re.MULTILINE)
    assert list(LOGS) == list(SECTIONS) == linked
    assert PAGE.count("```") == 2 * sum(1 + bool(shell) for shell, _ in SECTIONS.values())  # nothing that is not run


def test_sessions_are_found_again_in_their_rows(tmp_path):
    data = check(tmp_path, "RecBole session files")
    assert sorted([item for item, *_ in events] for *_, events in contents(data)) == [
        ["4", "6", "5"],
        ["5", "6", "5", "7"],
        ["6", "5"],
        ["8", "9", "5"],
    ]


def test_what_was_shown_and_not_clicked_is_no_event(tmp_path):
    data = check(tmp_path, "MIND")
    assert data.manifest.counts.events == 2
    assert data.manifest.cleaning["out of bounds"] == 2


@pytest.mark.parametrize(
    ("file", "content", "yaml", "said"),
    [
        (
            "s.inter",
            "session_id:token\titem_id_list:token_seq\titem_id:token\n"
            + "".join(f"{k}\t{k} {k + 1} {k + 2 * (k % 3)}\t{k}\n" for k in range(9)),
            "input: {files: s.inter, format: tsv}\n"
            "columns: {user: 'session_id:token', item: 'item_id_list:token_seq', timestamp: 'item_id:token'}",
            "lists of ids",
        ),
        (
            "s.json",
            "{u'username': u'Chaos Syren', u'product_id': u'725280', u'date': u'2017-12-17'}\n",
            "input: {files: s.json}\ncolumns: {user: username, item: product_id, timestamp: date}",
            "Python's notation",
        ),
        (
            "train.jsonl",
            '{"session": 1, "events": [{"aid": 5, "ts": 1659304800025, "type": "clicks"}]}\n',
            "input: {files: train.jsonl}\ncolumns: {user: session, item: events.aid, timestamp: events.ts}",
            "set input.unnest: events",
        ),
    ],
)
def test_what_is_not_taken_as_it_is_is_refused_in_words(tmp_path, file, content, yaml, said):
    write(tmp_path / file, content)
    with pytest.raises(AttnrecError, match=said):
        prepared(tmp_path, yaml)
