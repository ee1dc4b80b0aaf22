"""Quoting for SQL text: names of columns and values come from configs and files, so none goes in unquoted."""

from __future__ import annotations


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
