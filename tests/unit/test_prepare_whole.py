"""Input that is cut off, damaged, another file than its name says, or oddly written: read rightly, or refused in one line."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepare_helpers import contents, flip_byte, run

from attnrec_dist.errors import AttnrecError, ConfigError, FaultError, InputError, StorageError
from attnrec_dist.prepare import pipeline
from attnrec_dist.prepare.config.sections import EngineSection
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.reading import columns, lines, text_files
from attnrec_dist.prepare.reading.files import Stamp, unpacked
from attnrec_dist.prepare.reading.text_files import TextFormat, survey, with_one_line_end

ALL = {"train": 1, "validation": 0, "test": 0}
HEADER = b"user,item,time\n"
ROWS = [b"u%d,i%d,%d\n" % (k % 7, k % 5, 1000 + k) for k in range(40)]
GOOD = HEADER + b"".join(ROWS)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKED = {"gz": gzip.compress, "zst": zstd}


def read(tmp_path: Path, data: bytes, name: str = "log.csv", **sections) -> list:
    (tmp_path / name).write_bytes(data)
    return contents(run([tmp_path / name], tmp_path / "data", split=ALL, **sections))


def refused(tmp_path: Path, name: str = "log.csv", kind: type[AttnrecError] = InputError, **sections) -> str:
    with pytest.raises(kind) as caught:
        run([tmp_path / name], tmp_path / "refused", split=ALL, **sections)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800
    assert not (tmp_path / "refused").exists()
    assert not list(tmp_path.glob(".*preparing"))
    return message


def refused_bytes(tmp_path: Path, data: bytes, name: str = "log.csv", **sections) -> str:
    (tmp_path / name).write_bytes(data)
    message = refused(tmp_path, name, **sections)
    assert name in message
    return message


@pytest.mark.parametrize("packing", PACKED)
def test_a_packed_file_cut_anywhere(tmp_path, packing):
    """A log longer than any buffer, cut in half: the engine alone gives half the rows of .zst."""
    draw = random.Random(0)
    log = HEADER + b"".join(b"u%d,i%d,%d\n" % (draw.randrange(500), draw.randrange(500), k) for k in range(200_000))
    whole = PACKED[packing](log)
    for cut in (len(whole) // 2, len(whole) - 1, 10):
        assert "cut off" in refused_bytes(tmp_path, whole[:cut], f"log.csv.{packing}")
    (tmp_path / f"small.csv.{packing}").write_bytes(small := PACKED[packing](GOOD))
    assert survey(tmp_path / f"small.csv.{packing}", TextFormat()).ends_in_line_end
    for cut in range(len(small)):
        (tmp_path / f"small.csv.{packing}").write_bytes(small[:cut])
        with pytest.raises(InputError):
            survey(tmp_path / f"small.csv.{packing}", TextFormat())


def test_the_checksum_and_the_length_of_gzip(tmp_path):
    draw = random.Random(0)
    log = HEADER + b"".join(b"u%d,i%d,%d\n" % (draw.randrange(500), draw.randrange(500), k) for k in range(200_000))
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(log))
    for place in (-1, -8):
        flip_byte(tmp_path / "log.csv.gz", place)
        assert "log.csv.gz: cannot be unpacked" in refused(tmp_path, "log.csv.gz")
        flip_byte(tmp_path / "log.csv.gz", place)
    with unpacked(tmp_path / "log.csv.gz") as stream:
        assert stream.read() == log


@pytest.mark.parametrize("packing", PACKED)
def test_several_members_or_frames_and_what_follows_them(tmp_path, packing):
    pack, name = PACKED[packing], f"log.csv.{packing}"
    two = pack(HEADER + b"".join(ROWS[:20])) + pack(b"") + pack(b"".join(ROWS[20:]))
    assert read(tmp_path, two, name) == read(tmp_path, GOOD)
    for trailing in (b"garbage", b"\n", bytes(50), pack(GOOD)[:9]):
        assert "cannot be unpacked" in refused_bytes(tmp_path, two + trailing, name)
    assert "is empty" in refused_bytes(tmp_path, pack(b""), name)
    assert "is empty" in refused_bytes(tmp_path, b"", name)


def test_the_name_of_a_packed_file_in_capitals(tmp_path):
    assert read(tmp_path, gzip.compress(GOOD), "LOG.CSV.GZ") == read(tmp_path, GOOD)


def parquet(path: Path, checksums: bool) -> Path:
    draw = random.Random(0)
    table = pa.table({name: [str(draw.randrange(10**6)) for _ in range(3000)] for name in ("user", "item", "time", "more")})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=checksums, row_group_size=1000)
    return path


def test_page_checksums_of_parquet(tmp_path):
    """A bit in a value: whoever does not look at the checksums reads another number."""
    whole = parquet(tmp_path / "log.parquet", checksums=True).read_bytes()
    metadata = pq.ParquetFile(tmp_path / "log.parquet").metadata
    for group, column in ((0, 0), (1, 2), (2, 1)):
        start = metadata.row_group(group).column(column).data_page_offset
        (tmp_path / "log.parquet").write_bytes(whole)
        flip_byte(tmp_path / "log.parquet", start + 2000)
        message = refused(tmp_path, "log.parquet")
        assert "log.parquet: damaged" in message
        assert "CRC" in message
    (tmp_path / "log.parquet").write_bytes(whole)
    flip_byte(tmp_path / "log.parquet", metadata.row_group(0).column(3).data_page_offset + 2000)  # a column that is not read
    assert run([tmp_path / "log.parquet"], tmp_path / "data", split=ALL).manifest.cleaning["rows read"] == 3000


@pytest.mark.parametrize("checksums", [True, False])
def test_damaged_parquet_files(tmp_path, checksums, monkeypatch):
    """Bytes changed anywhere, the end too: one line, or, without checksums, a log that can be read."""
    monkeypatch.setattr(pipeline, "encode", lambda *_: pytest.skip("read"))
    whole = parquet(tmp_path / "log.parquet", checksums).read_bytes()
    draw = random.Random(1)
    read_anyway = 0
    for turn in range(40):
        data = bytearray(whole)
        place = draw.randrange(len(data)) if turn % 2 else len(data) - 1 - draw.randrange(2500)
        data[place] ^= 1 << draw.randrange(8)
        (tmp_path / "log.parquet").write_bytes(data)
        try:
            assert "log.parquet" in refused(tmp_path, "log.parquet")
        except pytest.skip.Exception:
            read_anyway += 1
    assert read_anyway < 40
    for cut in (3, 100, len(whole) - 1):
        assert "cannot be read as Parquet" in refused_bytes(tmp_path, whole[:cut], "log.parquet")


@pytest.mark.parametrize(
    ("tail", "parts"),
    [
        (b"u1,i2", ["Line: 42", "has 2 values", "does not end with a line end: it may be cut off"]),
        (b'u1,"i2', ["line 42", "quote", "does not end with a line end: it may be cut off"]),
    ],
)
def test_a_cut_plain_file(tmp_path, tail, parts):
    message = refused_bytes(tmp_path, GOOD + tail)
    assert [part for part in parts if part not in message] == []
    assert message.startswith(str(tmp_path / "log.csv"))


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_bytes(GOOD)
    verified = columns.verified

    def then_written_to(*given):
        found = verified(*given)
        with (tmp_path / "log.csv").open("ab") as file:
            file.write(ROWS[0])
        return found

    monkeypatch.setattr(columns, "verified", then_written_to)
    message = refused(tmp_path)
    assert "log.csv: changed while it was read" in message
    assert f"{len(GOOD):,} bytes before" in message


def ended(ends: list[bytes], data: bytes = GOOD) -> bytes:
    return b"".join(line + ends[k % len(ends)] for k, line in enumerate(data.splitlines()))


ENDS = [[b"\r"], [b"\r\n"], [b"\r\r\n"], [b"\n", b"\r\n"], [b"\r\n", b"\n"], [b"\r", b"\n"], [b"\r\n", b"\r", b"\n"]]


@pytest.mark.parametrize("ends", ENDS)
def test_line_ends(tmp_path, ends):
    plain = read(tmp_path, GOOD)
    assert read(tmp_path, ended(ends)) == plain
    assert read(tmp_path, gzip.compress(ended(ends).rstrip(b"\r\n")), "log.csv.gz") == plain


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("chunk", [3, 50, 2**20])
def test_line_ends_of_lines(tmp_path, monkeypatch, ends, chunk):
    monkeypatch.setattr(text_files, "CHUNK", chunk)
    (tmp_path / "log.txt").write_bytes(ended(ends, b"u a b\nv c\n\nw d"))
    rows = [row["text"] for batch in lines.numbered([tmp_path / "log.txt"], TextFormat()) for row in batch.to_pylist()]
    assert rows == ["u a b", "v c", "w d"]


@pytest.mark.parametrize("chunk", [1, 2, 7, 2**20])
def test_line_ends_inside_quotes_stay(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(text_files, "CHUNK", chunk)
    text = b'user,item,time\r\n"u\r1", "i""\n1",1001\nu"\r2,"a\r\nb",1002\r"u3,""",x,1003\r\n"\r'
    (tmp_path / "log.csv").write_bytes(text)
    with_one_line_end(tmp_path / "log.csv", tmp_path / "copy.csv", TextFormat(), ",")
    copy = b'user,item,time\n"u\r1", "i""\n1",1001\nu"\n2,"a\r\nb",1002\n"u3,""",x,1003\n"\r'
    assert (tmp_path / "copy.csv").read_bytes() == copy
    monkeypatch.setattr(text_files, "CHUNK", max(chunk, 3))
    assert len(survey(tmp_path / "log.csv", TextFormat()).line_ends) > 1


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_kinds_of_line_ends_are_seen_over_chunks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(text_files, "CHUNK", chunk)
    for text, mixes in {
        b"a\r\nb\r\n": False,
        b"a\rb\r": False,
        b"a\nb": False,
        b"a\r\nb\r": True,
        b"a\nb\r": True,
        b"\r\n\n": True,
    }.items():
        (tmp_path / "log.csv").write_bytes(text)
        assert (len(survey(tmp_path / "log.csv", TextFormat()).line_ends) > 1) == mixes, text


ODD = {
    "line ends only": (b"\n\n\n", "nothing but line ends"),
    "line ends only, CR": (b"\r\r", "nothing but line ends"),
    "an empty first line": (b"\n" + GOOD, "begins with an empty line"),
    "a long value": (GOOD + b"u" * 3_000_000 + b",i,1\n", "line 42 is longer than 2,000,000 bytes"),
    "a long header": (b"user,item,time," + b"x" * 3_000_000 + b"\n", "line 1 is longer than 2,000,000 bytes"),
    "a long name": (b"user,item,time," + b"x" * 200_000 + b"\n", "no rows below the header"),
    "an open quote in the header": (b'user,"item,time\n1,2,3\n', "the first row cannot be read"),
    "a NUL byte": (GOOD + b"u\0,i,1\n", "line 42 holds a NUL byte"),
    "zeros at the end": (GOOD + bytes(4096), "line 42 holds a NUL byte"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "is UTF-16 text; set input.encoding: utf-16"),
    "UTF-16 without mark": (GOOD.decode().encode("utf-16-le"), "line 1 holds a NUL byte"),
    "UTF-32": (GOOD.decode().encode("utf-32"), "is UTF-32 text"),
    "two files joined": (GOOD + b"\xef\xbb\xbf" + GOOD, "line 42 begins with a byte order mark"),
    "two files joined, CR": (b"a\r\xef\xbb\xbfb\r", "line 2 begins with a byte order mark"),
    "two marks": (b"\xef\xbb\xbf" * 2 + GOOD, "line 1 begins with a byte order mark"),
    "a mark alone": (b"\xef\xbb\xbf", "is empty"),
    "gzip": (gzip.compress(GOOD), "is gzip data; let its name end in .gz"),
    "zstd": (zstd(GOOD), "is zstd data; let its name end in .zst"),
    "a workbook": (b"PK\x03\x04 and so on", "an Excel workbook"),
    "a web page": (b"<!DOCTYPE html>\n<html>", "is a web page"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "noise": (random.Random(0).randbytes(5000), "NUL byte"),
    "noise without NUL": (bytes(1 + byte % 255 for byte in random.Random(1).randbytes(5000)), ""),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_files_are_refused_in_one_line(tmp_path, case):
    data, part = ODD[case]
    assert part in refused_bytes(tmp_path, data)


def test_a_byte_order_mark_inside_a_value_is_part_of_it(tmp_path):
    assert any(row[0] == "u\ufeff1" for row in read(tmp_path, GOOD + "u\ufeff1,i1,1\n".encode()))


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert "pipe.csv is a pipe, no file" in refused(tmp_path, "pipe.csv")
    (tmp_path / "link.csv").symlink_to("nowhere.csv")
    assert "link.csv is a link to a file that is not there" in refused(tmp_path, "link.csv")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert "loop.csv cannot be opened" in refused(tmp_path, "loop.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "folder.csv holds no file to read" in refused(tmp_path, "folder.csv")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xff.tsv")).write_bytes(GOOD)
    assert "is not UTF-8 text; rename the file" in refused(tmp_path, "*.tsv")
    assert "/dev/null is a device" in refused(tmp_path, "/dev/null")
    for name in ("a" * 5000, "~nobody-of-this-name/log.csv", "a\0b.csv", ""):
        files = {"input": {"files": [name]}}
        assert "no path" in refused(tmp_path, **files)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_bytes(GOOD)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "log.csv"))

    monkeypatch.setattr(pa, "input_stream", denied)
    assert "check the permissions" in refused(tmp_path, kind=StorageError)


@pytest.mark.parametrize("name", ["a b.csv", "a{1,2}.csv", "a\\b.csv", "a\nb.csv", "a'b.csv", 'a"b.csv', "-x.csv", "a%20#?.csv"])
def test_names_of_files_are_taken_literally(tmp_path, name):
    assert len(read(tmp_path, GOOD, name)) == 7


@pytest.mark.parametrize(
    ("dialect", "part"),
    [
        ({"quote": ","}, "input.quote: ',' is the delimiter, too"),
        ({"quote": ";", "delimiter": ";"}, "input.quote: ';' is the delimiter, too"),
        ({"quote": "\n"}, "input.quote: '\\n' is no sign"),
        ({"delimiter": "\r"}, "input.delimiter: '\\r' is no sign"),
        ({"quote": "“"}, "is not ASCII"),
    ],
)
def test_signs_that_cannot_work(tmp_path, dialect, part):
    (tmp_path / "log.csv").write_bytes(GOOD)
    message = refused(tmp_path, kind=ConfigError, input={"files": [str(tmp_path / "log.csv")], **dialect})
    assert part in message


def test_more_threads_than_any_machine_has(tmp_path):
    (tmp_path / "log.csv").write_bytes(GOOD)
    assert "engine.threads" in refused(tmp_path, kind=ConfigError, engine={"threads": 1_000_000})


def test_an_input_inside_the_output_stays(tmp_path):
    (tmp_path / "log.csv").write_bytes(GOOD)
    run([tmp_path / "log.csv"], tmp_path / "data", split=ALL)
    inside = tmp_path / "data" / "log.csv"
    inside.write_bytes(GOOD)
    (tmp_path / "link.csv").symlink_to(inside)
    for given in (inside, tmp_path / "link.csv"):
        with pytest.raises(ConfigError, match=r"the input .*log\.csv lies inside .*data, which is replaced as a whole"):
            run([given], tmp_path / "data", split=ALL)
    assert inside.read_bytes() == GOOD
    aside = tmp_path / ".data.preparing"
    aside.mkdir()
    (aside / "log.csv").write_bytes(GOOD)
    with pytest.raises(ConfigError, match="lies inside"):
        run([aside / "log.csv"], tmp_path / "data", split=ALL)
    assert (aside / "log.csv").exists()


def test_nothing_of_the_engine_surfaces_as_it_is(tmp_path):
    with DuckEngine(EngineSection(memory_limit="100MB", threads=1), tmp_path) as engine:
        for statement, kind in {
            "SELECT no_such_column": FaultError,
            "SELEC 1": FaultError,
            "SELECT CAST('x' AS INTEGER)": InputError,
            "SELECT error('first\nsecond')": InputError,
            "SELECT CAST(range + 9223372036854775000 AS BIGINT) * 9 FROM range(3)": InputError,
        }.items():
            with pytest.raises(kind) as caught:
                engine.rows(statement)
            assert "\n" not in str(caught.value)
        with pytest.raises(InputError):  # far behind the first batch, where Arrow brings the error
            for _ in engine.ordered_batches("SELECT CASE WHEN range = 900000 THEN error('late') ELSE '' END FROM range(1000000)"):
                pass


def test_a_stamp_tells_a_file_from_another(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(GOOD)
    before = Stamp.of(path)
    assert Stamp.of(path) == before
    (tmp_path / "other").write_bytes(GOOD)
    os.replace(tmp_path / "other", path)
    assert Stamp.of(path) != before
    path.unlink()
    with pytest.raises(StorageError):
        Stamp.of(path)
