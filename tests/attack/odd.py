"""Odd things that logs, YAML files and command lines have held, or might."""

from __future__ import annotations

from typing import Any

ODD_IDS = [
    ' u1', 'u1 ', 'U1', 'u1\xa0', 'NULL', 'null', 'NaN', 'None', 'nan', 'NA', '-', '0', '00', '1.0', '1e3', '10236.0', 'true',
    'é', 'e\u0301', '用户', '😀👩\u200d👩\u200d👧', '\u202eabc', '\u200b', '\ufeffu1', 'a,b', 'a"b', "a'b", 'a\\b',
    'a\tb', 'a\nb', 'a\r\nb', 'a;b|c', "'; DROP TABLE events; --", "=cmd|' /C calc'!A0", '../../etc/passwd', '%s%n', '{0}',
    '$(id)', '\x00', 'a\x00b', '\x1b[31m', '\x7f', "x" * 300, "y" * 70000, '#u1', '// u1', '-1', '+1', '[1, 2]',
    '{"id": 1}', 'item-1,item-2', '\ud7ff', '\U0010ffff',
]  # fmt: skip
ODD_NUMBERS = [
    '', ' ', 'inf', '-inf', 'NaN', '1e400', '1e39', '-1e38', '1e-400', '0x10', '1,5', '1_000', '--1', '1e', '.', "9" * 400,
    '1 2', '١', '½', 'NULL', 'true', '-0.0', '1e38', '3.4028235e38', '0.1', '+.5', '5.',
]  # fmt: skip
ODD_TIMES = [
    '', '0', '-1', '-86400', '1e9', '99999999999', '100000000000', '99999999999999999', '999999999999999999999999999999',
    'never', 'NULL', '0000-00-00', '2011-02-30', '2011-13-01', '1969-12-31', '9999-12-31', '2099-01-01', '2011-03-13T25:00',
    '2011-03-13T07:07:60', '2011-03-13T07:07:07+25:00', '20110313', '13/03/2011', '2011-3-1', '1300000000.9999999999',
    '2011-03-27T01:30:00', '-2011-01-01', '+12011-01-01', 'inf', '1300000000s', "4301" * 1100,
]  # fmt: skip
JUNK = [
    b'\x00', b'\xff\xfe', b'\xef\xbb\xbf', b'"', b'\r', b'\n\n\n', b'\x1a', b'\xc3(', b',', b',,,,,,,,', b'\\', b'\x85',
    b'\xe2\x80\xa8', b"'''''''''",
]  # fmt: skip
ODD_COLUMNS = [
    'note', 'User', 'ITEM', 'Time', 'user ', ' item', 'KIND', 'Quantity', 'a,b', 'c"d', 'é', 'index', 'id', 'us', 'NULL', 'n0',
]  # fmt: skip
ODD_NAMES = [
    'a log', 'журнал', "log'quoted", 'log[1]', '100%', 'log;drop', '{log}', '-log', 'log..csv', '$HOME', 'log#1', 'l\nog',
]  # fmt: skip
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1000000000000000000, 10**400, 0.5, 1e+308, float("inf"), float("nan"), '', ' ', 'é',
    "x" * 100000, '\x00', 'a\x00b', [], [[]], {}, {'a': 1}, ['a', 'b'], [None], 'null', '~', '1e3', '0o17', '1:30',
    '2011-01-01', 'no', '/', '/dev/null', '/dev/full', '..', '*', '[', '-', '--', "'", '"', '\t', ',,', 'UTC', 'Mars/Base',
    '../../../etc/passwd', 'file:///etc/passwd', 'http://127.0.0.1:9/x', 's3://bucket/x', '~root', '$HOME', '%Y', '%', '100GB',
    '-1GB', '0MB', '1e3MB', '99999999TB', 1000000,
]  # fmt: skip
ODD_YAML = [
    '? [a]\n: 1\n', '? {a: b}\n: 1\n', "[" * 1000 + "]" * 1000, "{a: " * 500 + "}" * 500, "- " * 2000, "x: " + "9" * 4301,
    "x: -" + "9" * 5000, "x: 1e" + "9" * 100, 'a: &a [1, 2]\nb: *a\n', 'a: *unknown\n', '<<: {input: 1}\n', 'a: &a {<<: *a}\n',
    '&a [*a]\n', "a: !!python/object/apply:os.system ['id']\n", "a: !!binary '#'\n", 'a: !!timestamp x\n', 'a: !!int x\n',
    'a: !!float x\n', 'a: !!set {a}\n', 'a: !!omap [1]\n', 'a: !unknown 1\n', '\tinput: 1\n', "a: 'unclosed\n", 'a: "\\x"\n',
    'a: |\n  text\n b\n', '%YAML 9.9\n---\n', 'a: b: c\n', '---\na: 1\n---\nb: 2\n', '\x00', '\x07', '\ud800',
    '\ufeff\ufeffa: 1\n', 'a:\n- b\n c: d\n', 'input\n', '42\n', '', '\n', '~\n', '[]\n', '...\n', 'a: 2011-01-01T00:00:00\n',
    ': 1\n', 'null: 1\n', '1: 2\n', 'true: 1\n', '[a]: 1\n', '!!map {}\n', "'': 1\n", 'a: 0b1_\n', 'a: .\n', '=: 1\n',
    'a: &x [z,z,z,z,z,z,z,z,z]\nb: &y [*x,*x,*x,*x,*x,*x,*x,*x,*x]\nc: &w [*y,*y,*y,*y,'
    '*y,*y,*y,*y,*y]\nd: &v [*w,*w,*w,*w,*w,*w,*w,*w,*w]\ne: &u [*v,*v,*v,*v,*v,*v,*v,*'
    'v,*v]\nf: &t [*u,*u,*u,*u,*u,*u,*u,*u,*u]\ng: &s [*t,*t,*t,*t,*t,*t,*t,*t,*t]\n',
]  # fmt: skip
ODD_OPTIONS = [
    ['--nonsense'], ['--nonsense', '1'], ['--input'], ['--output'], ['--output', ''], ['--output', 'prepare.yaml'],
    ['--output', 'full'], ['--output', '/dev/null'], ['--output', '.'], ['--output', '..'], ['--output', 'a/b/c/d'],
    ["--output", "x" * 300], ['--output', '/proc/x'], ['--output', 'log.csv'], ['--output', 'fifo'], ['--input', 'nowhere.csv'],
    ['--input', '.'], ['--input', '*'], ['--input', 'fifo'], ['--input', 'full'], ['--input', '/dev/zero'],
    ['--input', '/dev/null'], ['--input', 'prepare.yaml'], ['--input', 'log.csv', 'log.csv'], ['--input', ''],
    ['--engine.threads', '1000000'], ['--engine.threads', '-1'], ["--engine.threads", "9" * 4301], ['--engine.threads'],
    ['--engine.memory_limit', '1KB'], ['--engine.memory_limit', '0MB'], ['--engine.memory_limit', '9999999TB'],
    ['--engine.memory_limit=200MB'], ['--filters.min_item_events', '1000000000'],
    ['--filters.min_item_events', '999999999999999999999999999999'], ['--filters.min_user_events=-5'],
    ['--columns.user', 'Item'], ['--columns.user', ''], ['--columns.user', '[a]'], ['--columns.user', 'item'],
    ['--columns.timestamp.unit', 'ns'], ['--columns.timestamp.unit', 'parsec'], ['--columns.timestamp.format', '%'],
    ['--columns.timestamp.format', '%q'], ['--columns.timestamp.time_zone', '../../etc/passwd'],
    ['--columns.timestamp.time_zone', 'Europe/London'], ['--split.train', 'nan'],
    ['--split.train', '1', '--split.validation', '0', '--split.test', '0'],
    ['--split.train', '1e-9', '--split.validation', '0.9', '--split.test', '0.099999999'], ['--split.kind', 'leave_one_out'],
    ['--split.kind', 'leave_one_out', '--split.last', '1000000000'], ['--split.validation_from', '2011-01-01'],
    ['--input.quote', ','], ['--input.quote', 'xx'],
    ['--split.validation_from', '2011-05-01', '--split.test_from', '2011-04-01'],
    ['--split.validation_from', '2011-05-01', '--split.test_from', '2011-06-01'], ['--input.delimiter', '"'],
    ['--input.delimiter', '\n'], ['--input.delimiter', '\\r'], ['--input.delimiter', 'é'], ['--input.delimiter', '\x00'],
    ['--input.max_bad_share', '2'], ['--input.end', '2011-04-01'], ['--input.end', '1011-04-01'],
    ['--input.end', '99999-01-01'], ['--input.format', 'parquet'], ['--input.format', 'pairs'], ['--input.format', 'json'],
    ['--input.header', 'false'], ['--statistics.graph.kind', 'none'],
    ['--statistics.graph.kind', 'next', '--statistics.graph.within', '100'], ['--statistics.graph.neighbours', '1000000000'],
    ['--statistics.graph.max_basket', '2'], ['--statistics.events', '[nothing]'], ['--output.events_per_shard', '1'],
    ['--a.b.c.d.e.f', '1'], ['--.', '1'], ['--input..files', '1'], ['--input.files.0', 'x'],
    ['--input', 'log.csv', '--input', 'log.csv'], ['-x'], ['--'], ['extra'], ['--help'], ['--print_config'],
    ['--print_config', '--nonsense'], ['--items.file', 'nowhere.csv'], ['--items.file', 'log.csv'],
    ['--items.file', 'log.csv', '--items.id', 'item', '--items.columns.title', 'user'],
    ['--users.file', 'log.csv', '--users.id', 'nothing', '--users.columns.x', 'item'],
    ['--items.file', 'log.csv', '--items.id', 'time', '--items.columns.title', 'user'],
    ['--filters.where', '{time: {min: 2, max: 1}}'], ['--filters.where', '{user: {min: 2}}'],
    ['--filters.where', '{\'a"b\': {min: 2}}'],
]  # fmt: skip
