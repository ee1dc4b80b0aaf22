"""The corridor from a raw log to a data set: read, clean, filter, split, number, write. Each step names its file.

    reading/           which files, are they whole, files -> rows of text
    cleaning.py        text -> values, and why a row is left out
    choice.py          what is learnt from and what is held out; id_lists.py: users and items by name
    statements.py      the SQL between clean rows and shards; engines/duckdb.py runs it
    statistics.py      daily counts and the item graph
    examples/          label and features -> labelled examples
    writing.py         tables -> files; shard_writer.py: one shard's rows -> lists
    report.py          what was left out, and why
    findings/          what would spoil a model
    staging.py         built aside, synced, renamed
    config/            the keys

Memory is bounded by engine.memory_limit and by one shard; the log itself is never held.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from attnrec_dist.data.manifest import Manifest
from attnrec_dist.errors import InputError
from attnrec_dist.prepare import choice, cleaning, id_lists
from attnrec_dist.prepare import statements as steps
from attnrec_dist.prepare.config import PrepareConfig, named_events
from attnrec_dist.prepare.config.sections import MAX_EVENT_TYPES, check_event_kinds
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.findings import suspects, unnamed
from attnrec_dist.prepare.findings.find import LogFacts, told
from attnrec_dist.prepare.reading import columns as reading
from attnrec_dist.prepare.reading import lines
from attnrec_dist.prepare.reading.columns import Source
from attnrec_dist.prepare.reading.files import find_files
from attnrec_dist.prepare.reading.joined import JoinedSource, load, name_in_other
from attnrec_dist.prepare.reading.misread import check_cells
from attnrec_dist.prepare.reading.ragged import RaggedRow
from attnrec_dist.prepare.reading.wanted import require_columns, united, with_later_fields
from attnrec_dist.prepare.report import READ, check_times, check_usable, ragged_rows, summary
from attnrec_dist.prepare.staging import workplace
from attnrec_dist.prepare.writing import Facts, Writer
from attnrec_dist.terminal.layout import counted
from attnrec_dist.times.timestamps import FORMS

Progress = Callable[[str], None]


def prepare(config: PrepareConfig, base_dir: Path, output: Path, progress: Progress = lambda _: None) -> Manifest:
    """Writes the data set to `output` and returns its manifest; `base_dir` is where the config's relative paths start.

    An existing data set is replaced once the new one is whole. Raises InputError, ConfigError, StorageError.
    """
    sources, joined = open_log(config, base_dir, progress)
    attributes = {name: open_entity_file(config, base_dir, name, progress) for name in ("items", "users")}
    lists = id_lists.open_lists(config, base_dir)
    opened = (sources, joined, *attributes.values(), *lists.values())
    inputs = [file for some in opened for source in some for file in source.files]
    with workplace(output, inputs) as place, DuckEngine(config.engine, place.scratch) as engine:
        sources = reading.readable(sources, place.scratch / "copies")
        joined = reading.readable(joined, place.scratch / "copies_of_join")
        attributes = {name: reading.readable(some, place.scratch / f"copies_of_{name}") for name, some in attributes.items()}
        if config.input.join is not None and isinstance(sources[0], JoinedSource):
            load(engine, config.input.join, joined, sources[0].theirs)
        id_lists.load(engine, config, lists, place.scratch / "copies_of_lists")
        left_out, sources = clean(engine, config, sources, progress)
        id_lists.tell_unknown(engine, lists, progress)
        findings = suspects.kinds_left_out(engine, config.columns.event) + unnamed.returns(engine, config, sources)
        types = encode(engine, config)
        choice.join_baskets(engine, config, progress)
        left_out["duplicate"] = choice.drop_duplicates(engine, config)
        check_cells(engine, config, sources)
        split = choice.filter_and_split(engine, config, left_out, progress)
        number(engine, config)
        log = LogFacts(types, config.columns.numeric, split, left_out, config.without_paths(), config.has_places)
        findings += suspects.find(engine, log)
        writer = Writer(engine, config, place, progress)
        manifest = writer.write(Facts(types, split, left_out), attributes)
        place.publish(manifest)
    progress(f"wrote {output}, fingerprint {manifest.fingerprint[:16]}")
    progress(summary(manifest))
    progress(told(findings + writer.findings))
    return manifest


def open_log(config: PrepareConfig, base_dir: Path, progress: Progress) -> tuple[list[Source], list[Source]]:
    """The log's files, and those of input.join: whole, the needed columns found."""
    log, join = config.input, config.input.join
    in_order, one_kind = log.format == "pairs", log.format != "auto"
    files = find_files(log.files, base_dir, "input.files", in_order, one_kind, progress)
    sources = reading.inspect(files, log.format, log.layout("input"))
    wanted, optional = cleaning.wanted_keys(config), cleaning.optional_columns(config)
    if join is None:
        return _checked(sources, wanted, optional), []
    other = reading.inspect(
        find_files([join.file], base_dir, "input.join.file", tell=progress), join.format, join.layout("input.join")
    )
    known = {name for source in other for name, _ in source.columns}
    own = {name for source in sources for name, _ in source.columns}
    theirs = {key: name for key, column in wanted.items() if (name := name_in_other(column, own)) in known}
    mine = {key: column for key, column in wanted.items() if key not in theirs}
    sources = _checked(sources, mine | {"input.join.on": join.on}, optional)
    other = _checked(other, theirs | {"input.join.id" if join.id else "input.join.on": join.id or join.on})
    names = tuple(dict.fromkeys(theirs.values()))
    return [JoinedSource.of(source, join.on, names) for source in sources], other


def _checked(sources: list[Source], wanted: dict[str, str], optional: list[str] | None = None) -> list[Source]:
    """Sources with the columns of {config key: column}, each looked over to its last byte; one of them need have an optional
    column."""
    if sources[0].is_lines:
        wanted = {}
    sources = with_later_fields(sources, list(wanted.values()))
    sources = united(sources, optional or [])
    require_columns(sources, wanted)
    return reading.verified(sources, list(wanted.values()))


def open_entity_file(config: PrepareConfig, base_dir: Path, name: Literal["items", "users"], progress: Progress) -> list[Source]:
    """The item's or the user's file, whole, the needed columns found; none where no text of it is asked for."""
    section = getattr(config, name)
    if section is None or not section.columns:
        return []
    files = find_files([section.file], base_dir, f"{name}.file", tell=progress)
    wanted = {f"{name}.id": section.id} | {f"{name}.columns.{key}": column for key, column in section.columns.items()}
    return _checked(reading.inspect(files, section.format, section.layout(name)), wanted)


def clean(
    engine: DuckEngine, config: PrepareConfig, sources: list[Source], progress: Progress
) -> tuple[dict[str, int], list[Source]]:
    """The one pass over the log: table `clean`; the rows read and left out by reason; the sources as they could be read.

    Where rows are ragged, there is a second one, which leaves them out.
    """
    wanted = cleaning.wanted_columns(config)
    for source in sources:
        if source.is_lines:  # all in one source
            engine.load(lines.LINES, lines.SCHEMA, lines.numbered(source.files, source.text))
            if source.kind == "user_items":
                lines.check_one_line_a_user(engine.rows, source.files)
    try:
        _read(engine, config, sources, wanted)
    except RaggedRow:
        sources = reading.without_ragged(sources, engine.scratch / "copies")
        _read(engine, config, sources, wanted)
    found = dict(engine.rows("SELECT reason, count(*) FROM clean GROUP BY reason"))
    forms = {FORMS[form]: count for form, count in engine.rows(cleaning.forms())}
    ragged = sum(len(each.rows) for source in sources for each in source.ragged.values())
    if ragged:
        found[cleaning.REASONS[0]] = found.get(cleaning.REASONS[0], 0) + ragged
        progress(f"warning: {ragged:,} rows with too many or too few values are left out: {'; '.join(ragged_rows(sources))}")
    report = {READ: sum(found.values()), **{reason: found.get(reason, 0) for reason in cleaning.REASONS}}
    progress(f"read {report[READ]:,} rows from {counted(sum(len(source.files) for source in sources), 'file')}")
    check_usable(config, report, sources, engine.rows)
    check_times(config, forms, progress)
    if sources[0].is_lines:
        engine.drop(lines.LINES)
    return report, sources


def _read(engine: DuckEngine, config: PrepareConfig, sources: list[Source], wanted: dict[str, str]) -> None:
    with reading.reading(sources):
        engine.view("raw", reading.rows_of(sources, wanted))
        engine.table("clean", cleaning.clean(config))


def encode(engine: DuckEngine, config: PrepareConfig) -> list[str]:
    """Table `events`: integers only. Returns the event types, in index order."""
    column = config.columns.event
    types: list[str] = []
    if column is not None:
        types = column.types or [name for (name,) in engine.rows(steps.event_types())]
        if len(types) > MAX_EVENT_TYPES:
            raise InputError(
                f"column {column.name!r} holds {len(types):,} kinds of events, at most {MAX_EVENT_TYPES} fit, for example "
                f"{', '.join(types[:5])}; is columns.event the right column? columns.event.types lists the ones to keep"
            )
        try:
            check_event_kinds(named_events(config), types)
        except ValueError as error:
            raise InputError(str(error)) from None
    engine.table("user_codes", steps.user_codes())
    engine.table("item_codes", steps.item_codes())
    engine.table("events", steps.encoded(types, len(config.columns.numeric)))
    engine.drop("clean")
    return types


def number(engine: DuckEngine, config: PrepareConfig) -> None:
    """Tables `catalogue` (items by number) and `row_codes` (users by row)."""
    engine.table("catalogue", steps.catalogue(whole=config.split.is_by_user))
    engine.table("row_codes", steps.rows())
