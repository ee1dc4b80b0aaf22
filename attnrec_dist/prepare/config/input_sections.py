"""The keys that say which files there are and how they are written: `input`, its `join`, `items`, `users`."""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from attnrec_dist.paths import InputPath
from attnrec_dist.prepare.config.sections import moment
from attnrec_dist.prepare.reading.text_files import TextFormat
from attnrec_dist.settings import Section

RESERVED_ITEM_COLUMNS = ("index", "id", "count")
LINE_FORMATS = ("user_items", "pairs")  # their order is the time: prepare/reading/lines.py

Decimal = Literal[".", ","]
DECIMAL: Any = Field(
    default=".", description="in numbers. ',': 12,50; points, blanks and apostrophes before three digits group thousands"
)


class Dialect(Section):
    """How files with a row a line are written."""

    delimiter: str | None = Field(
        default=None,
        min_length=1,
        description="between columns of csv and tsv, at most 4 bytes, such as ';' or '::'; null: , and tab",
    )
    quote: str = Field(default='"', max_length=1, description="around values that hold a delimiter, doubled inside; empty: none")
    header: bool = Field(default=True, description="the first line of each csv or tsv file names the columns")
    names: list[str] = Field(default=[], description="the columns' names, in the files' order, where header is false")
    encoding: str = Field(
        default="utf-8", description="of the text in them, as Python names it: latin-1, cp1252, gb18030, shift-jis, utf-16, ..."
    )
    null_values: list[str] = Field(
        default=[], description="what stands for a missing value beside an empty one, to the letter, such as NULL, NaN, \\N"
    )
    trim: bool = Field(default=False, description="take blanks off both ends of each value, and of the names in a header")

    @field_validator("delimiter")
    @classmethod
    def _short(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and len(delimiter.encode()) > 4:
            raise ValueError("at most 4 bytes can part columns; write the file with a shorter delimiter")
        return delimiter

    @field_validator("null_values", mode="before")
    @classmethod
    def _as_written(cls, values: Any) -> Any:
        """YAML reads NULL and -1 as something else than the texts that are meant."""
        if not isinstance(values, list):
            return values
        texts = [["NULL", "null", "Null"] if value is None else [value] for value in values]
        return [str(value) if type(value) in (int, float) else value for each in texts for value in each]

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            is_text = "a\n".encode(encoding).decode(encoding) == "a\n" and codecs.getincrementaldecoder(encoding) is not None
        except (LookupError, ValueError, TypeError):
            is_text = False
        if not is_text:
            raise ValueError("no encoding of text that Python knows; for example utf-8, latin-1, cp1252, gb18030, utf-16")
        return encoding

    def layout(self, where: str) -> TextFormat:
        return TextFormat(
            self.delimiter,
            self.quote,
            self.header,
            tuple(self.names),
            codecs.lookup(self.encoding).name,
            where,
            tuple(self.null_values),
            self.trim,
        )


class OneFile(Dialect):
    """A file beside the log; or several with the same columns, as in input.files."""

    file: Annotated[str, InputPath(patterns=True)] = Field(description="csv, tsv, parquet or jsonl; found as input.files are")
    format: Literal["auto", "csv", "tsv", "parquet", "jsonl"] = Field(default="auto", description="as in input")

    @model_validator(mode="after")
    def _names_or_header(self) -> OneFile:
        if self.header == bool(self.names):
            raise ValueError(
                "names is given while header is true" if self.header else "header is false, so names must list the columns"
            )
        return self


class EntityFile(OneFile):
    """A file with a row an item or a user."""

    id: str = Field(description="its column with the id, as in the log")
    decimal: Decimal = DECIMAL
    columns: dict[str, str] = Field(default={}, description="text to read: our name -> column of the file")

    @field_validator("columns")
    @classmethod
    def _free_names(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name in RESERVED_ITEM_COLUMNS or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"{name!r} cannot be a name: lower-case letters, digits, _, and not {', '.join(RESERVED_ITEM_COLUMNS)}"
                )
        return columns


class ItemsSection(EntityFile):
    columns: dict[str, str] = Field(
        default={}, description="text to keep: name in the data set -> column of the file; `title` is shown in recommendations"
    )


class JoinSection(OneFile):
    """A file with a row an order, for lines that name only their order."""

    on: str = Field(description="column of the lines' files that tells the order's row")
    id: str | None = Field(default=None, description="the column of `file` that holds it, once a row; null: named as `on`")


class InputSection(Dialect):
    files: Annotated[list[str], InputPath("input", patterns=True)] = Field(
        min_length=1,
        description="raw log: paths, patterns with * and ?, directories (day=5 in a path is a column); beside the YAML, "
        "else where you are",
    )
    format: Literal["auto", "csv", "tsv", "parquet", "jsonl", "user_items", "pairs"] = Field(
        default="auto",
        description="auto: by the file name, a trailing .gz or .zst left aside (all but parquet may be compressed). jsonl: a "
        "JSON object a line; product.id names a field of a field. user_items: "
        "a line a user, `user item item ...`; pairs: a line an event, `user item`, files listed one by one. In these two, order "
        "is the time: an event's place in its user's history, 0, 1, 2, ...; columns is left out, and split is leave_one_out",
    )
    join: JoinSection | None = Field(
        default=None,
        description="a second file, for example of orders whose lines `files` holds: its columns may be named, too, those that "
        "both have as join.NAME; rows without a match are left out and counted",
    )
    unnest: str | None = Field(
        default=None,
        min_length=1,
        description="a field of jsonl that holds a list: a row for each of its values, as if that stood in the list's place. "
        "events: events.id names a field of theirs",
    )
    decimal: Decimal = DECIMAL
    start: str | None = Field(
        default=None, description="when the log begins, ISO 8601: events before it are left out and counted; null: with its first"
    )
    end: str | None = Field(
        default=None,
        description="when the log ends, ISO 8601: events at or after it are left out and counted, and no label looks beyond; "
        "null: just after the last event. The clock is never asked",
    )
    item_lists: Literal["refuse", "keep"] = Field(
        default="refuse",
        description="what to do where most items look like lists of ids, as `i1 i2 i3`. refuse: stop; keep: each is one id",
    )
    max_bad_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="stop when more rows than this share are damaged, or lack a user, an item, a readable time or number",
    )

    def layout(self, where: str) -> TextFormat:
        return replace(super().layout(where), unnest=self.unnest)

    @model_validator(mode="after")
    def _dates(self) -> InputSection:
        start, end = (moment(text, "UTC") if text is not None else None for text in (self.start, self.end))
        if start is not None and end is not None and start >= end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        return self

    @model_validator(mode="after")
    def _names_or_header(self) -> InputSection:
        if self.unnest is not None and self.format not in ("auto", "jsonl"):
            raise ValueError(f"unnest is of jsonl files; leave it out with format {self.format}")
        if self.format in (*LINE_FORMATS, "jsonl"):
            given = {"delimiter": self.delimiter, "quote": self.quote != '"', "header": not self.header, "names": self.names}
            for key in [key for key, is_given in given.items() if is_given]:
                raise ValueError(f"{key} is of csv and tsv files; leave it out with format {self.format}")
            return self
        if self.header and self.names:
            raise ValueError("names is given while header is true; set header: false, or leave names out")
        if not self.header and not self.names and self.format != "parquet":
            raise ValueError("header is false, so names must list the columns in the files' order")
        return self
