"""Tables in the engine -> the files of a data set, a shard at a time, the fingerprint along the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attnrec_dist.data.dataset import Shard
from attnrec_dist.data.example_format import ExamplesSpec, FieldSpec
from attnrec_dist.data.manifest import DAILY, FORMAT_VERSION, GRAPH, SEQUENCES, TABLES, Counts, Manifest, Split
from attnrec_dist.errors import FaultError
from attnrec_dist.prepare import statements
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.config.sections import moment
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.examples.build import ExampleMaker
from attnrec_dist.prepare.examples.files import ExampleFiles
from attnrec_dist.prepare.examples.labels import Ends
from attnrec_dist.prepare.findings.find import Finding
from attnrec_dist.prepare.findings.suspects import unmatched
from attnrec_dist.prepare.reading.columns import Source, reading, rows_of
from attnrec_dist.prepare.shard_writer import Fingerprint, Tally, read_shard, record_of, write_shard
from attnrec_dist.prepare.sql import identifier
from attnrec_dist.prepare.staging import Workplace
from attnrec_dist.prepare.statistics import Statistics
from attnrec_dist.terminal.layout import counted


@dataclass(frozen=True)
class Facts:
    """What the earlier steps found out and the manifest tells."""

    event_types: list[str]
    split: Split
    cleaning: dict[str, int]


class Writer:
    def __init__(self, engine: DuckEngine, config: PrepareConfig, place: Workplace, progress: Callable[[str], None]):
        self.engine = engine
        self.config = config
        self.place = place
        self.progress = progress
        self.fingerprint = Fingerprint()
        self.findings: list[Finding] = []  # of the files about items and users

    def write(self, facts: Facts, attributes: dict[str, list[Source]]) -> Manifest:
        """All files but the manifest, which this returns. `attributes`: the files of "items" and "users"; empty: none."""
        num_items, num_all_items = self.engine.row("SELECT count(*) FILTER (WHERE ranked), count(*) FROM catalogue")
        statistics, report = self._statistics(facts.event_types, num_items)
        examples = self._examples(facts, attributes) if self.config.label else None
        shards, tally = self._sequences()
        tables = [self._items(attributes["items"]), self._users(), *statistics]
        return Manifest(
            format_version=FORMAT_VERSION,
            fingerprint=self.fingerprint.hexdigest(self._settings(facts, num_items)),
            counts=Counts(
                rows=tally.rows,
                events=tally.train_events + tally.validation_events + tally.test_events,
                train_events=tally.train_events,
                validation_events=tally.validation_events,
                test_events=tally.test_events,
                users_without_train_events=tally.users_without_train_events,
            ),
            num_items=num_items,
            num_all_items=num_all_items,
            event_types=facts.event_types,
            numeric=self.config.columns.numeric,
            split=facts.split,
            start_time=tally.start_time,
            end_time=tally.end_time,
            shards=shards,
            tables=tables,
            config=self.config.without_paths(),
            cleaning=facts.cleaning,
            statistics=report,
            examples=examples,
        )

    def _settings(self, facts: Facts, num_items: int) -> dict[str, object]:
        """What goes into the fingerprint beside the columns: names of columns in the log and of files do not."""
        label = self.config.label
        of_examples = (
            {"label": label.model_dump(mode="json"), "features": self.config.model_dump(mode="json")["features"]} if label else {}
        )
        return of_examples | {
            "format_version": FORMAT_VERSION,
            "num_items": num_items,
            "event_types": facts.event_types,
            "numeric": self.config.columns.numeric,
            "split": facts.split.model_dump(exclude_defaults=True),  # `last` came later
            "filters": self.config.without_paths()["filters"],
            "statistics": self.config.statistics.model_dump(mode="json"),
        }

    def _statistics(self, event_types: list[str], num_items: int) -> tuple[list[Shard], dict[str, int]]:
        """Before the sequences, which let go of the events."""
        counting = Statistics(self.engine, self.config.statistics, self.fingerprint, self.place.scratch, num_items)
        counting.choose(event_types, len(self.config.columns.numeric))
        counting.daily(self.place.building / DAILY)
        rule, why = counting.graph_rule(self.config.has_no_baskets)
        if why:  # from here on as if it had been named
            self.progress(f"statistics.graph.kind: {rule.kind}, as {why}")
            self.config = self.config.with_graph(rule)
        if rule.kind != "none":
            counting.graph(self.place.building / GRAPH, rule, len(self.config.columns.numeric))
        self.progress("counted " + ", ".join(f"{count:,} {name}" for name, count in counting.report.items() if count))
        written = (self.place.building / name for name in (DAILY, GRAPH))
        return [record_of(path, num_items) for path in written if path.exists()], counting.report

    def _examples(self, facts: Facts, attributes: dict[str, list[Source]]) -> ExamplesSpec:
        """Before the sequences, too."""
        zone = self.config.columns.timestamp.time_zone
        end = self.config.input.end
        last = self.engine.row(f"SELECT max({statements.SECOND}) FROM events")[0]
        split = facts.split
        ends = Ends(split.train_end or 0, split.valid_end or 0, moment(end, zone) if end else last + 1)
        maker = ExampleMaker(self.engine, self.config, facts.event_types, ends)

        def files(tasks: list[str], fields: list[FieldSpec]) -> ExampleFiles:
            return ExampleFiles(self.place.building, tasks, fields, self.fingerprint)

        spec = maker.write(files, attributes, self.progress)
        self.findings += maker.unmatched.get("user", [])  # of the items _items tells
        self.progress(f"wrote {sum(spec.counts.values()):,} examples")
        return spec

    def _sequences(self) -> tuple[list[Shard], Tally]:
        users, events = self.engine.row("SELECT (SELECT count(*) FROM row_codes), (SELECT count(*) FROM events)")
        wanted = -(-events // self.config.output.events_per_shard)
        per_shard = -(-users // wanted)
        parts = self.place.scratch / "rows"
        self.engine.write_partitions(statements.sharded(len(self.config.columns.numeric), per_shard), parts, "shard")
        self.engine.drop("events")
        tally, shards = Tally(), []
        for index in range(-(-users // per_shard)):
            rows = read_shard(parts / f"shard={index}", self.config.columns.numeric)
            path = self.place.building / SEQUENCES / f"part-{index:05}.arrow"
            write_shard(rows, path)
            shutil.rmtree(parts / f"shard={index}")
            tally.add(rows)
            self.fingerprint.add_rows(rows)
            shards.append(record_of(path, len(rows)))
        if tally.rows != users:
            raise FaultError(f"the engine gave {tally.rows} users where it had counted {users}; please report this")
        self.progress(f"wrote {counted(len(shards), 'shard')}")
        return shards, tally

    def _items(self, item_file: list[Source]) -> Shard:
        names = sorted(self.config.items.columns) if self.config.items and item_file else []
        if self.config.items and names:
            columns = self.config.items.columns
            wanted = {"id": self.config.items.id} | {name: columns[name] for name in names}
            smallest = "".join(f", min({identifier(name)}) AS {identifier(name)}" for name in names)
            with reading(item_file):
                self.engine.table("item_texts", f"SELECT id{smallest} FROM ({rows_of(item_file, wanted)}) AS a GROUP BY id")
            shown = "title" if "title" in names else names[0]
            known = f"SELECT id FROM item_texts WHERE id IS NOT NULL AND {identifier(shown)} IS NOT NULL"
            self.findings += unmatched(self.engine, "item", known, f"have a {shown}")
        shape = [("index", pa.int32()), ("id", pa.string()), ("count", pa.int64()), *((name, pa.string()) for name in names)]
        return self._table(TABLES[0], statements.item_texts(names), pa.schema(shape))

    def _users(self) -> Shard:
        return self._table(TABLES[1], statements.user_ids(), pa.schema([("index", pa.int64()), ("id", pa.string())]))

    def _table(self, name: str, query: str, shape: pa.Schema) -> Shard:
        """A Parquet file of an ordered query whose first column counts from 0. index, id and count go into the fingerprint."""
        path: Path = self.place.building / name
        rows = 0
        with pq.ParquetWriter(path, shape, compression="zstd") as writer:
            for batch in self.engine.ordered_batches(query):
                if not batch.column(0).equals(pa.array(range(rows, rows + len(batch)), batch.column(0).type)):
                    raise FaultError(f"the engine returned {name} out of order; please report this with your duckdb version")
                writer.write_batch(batch.cast(shape))
                self.fingerprint.add_texts(f"{name}/id", batch.column(1).to_pylist())
                if "count" in shape.names:
                    self.fingerprint.add(f"{name}/count", batch.column(2).to_numpy())
                rows += len(batch)
        return record_of(path, rows)
