"""Label and features -> labelled examples on disk: labels.py says which there are, features.py what is known of them.

Everything is a table of the engine, within its memory limit; what leaves it is in order, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from attnrec_dist.data.example_format import (
    EXAMPLE_PARTS,
    FIELD_PREFIX,
    FIRST_VALUE,
    LABEL_PREFIX,
    MISSING,
    QUANTILES,
    UNSEEN,
    ExamplesSpec,
    FieldSpec,
)
from attnrec_dist.errors import InputError
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.engines.duckdb import DuckEngine
from attnrec_dist.prepare.examples import labels
from attnrec_dist.prepare.examples.as_of import KEYS, AsOf, known
from attnrec_dist.prepare.examples.features import FEATURES, Log, Recipe
from attnrec_dist.prepare.examples.files import ExampleFiles
from attnrec_dist.prepare.findings.find import Finding
from attnrec_dist.prepare.findings.suspects import unmatched
from attnrec_dist.prepare.reading.columns import Source, reading, rows_of
from attnrec_dist.prepare.sql import clamped, identifier
from attnrec_dist.prepare.statements import TRAIN

LARGEST = 3.4e38
OWN_KINDS = ("item", "user", "column")  # features whose absence from a whole part is a mistake, not a coincidence


@dataclass(frozen=True)
class Feature:
    """A recipe with its as-of columns named."""

    name: str
    recipe: Recipe
    expression: str  # SQL of the value: text or number, NULL missing
    as_of: dict[str, AsOf]
    min_count: int
    kind: str

    @property
    def is_text(self) -> bool:
        return self.recipe.kind == "categorical"


class ExampleMaker:
    """Reads the tables `events`, `catalogue`, `row_codes`, `user_codes`, `item_codes`; leaves them as they are."""

    def __init__(self, engine: DuckEngine, config: PrepareConfig, event_types: list[str], ends: labels.Ends):
        self.engine, self.config, self.ends = engine, config, ends
        if config.label is None:
            raise ValueError("no label, no examples")
        self.label = config.label
        columns = config.columns
        zone = columns.timestamp.time_zone
        own = self.label.kind != "sampled"
        files = {"item": config.items, "user": config.users}
        commas = tuple(whose for whose, file in files.items() if file is not None and file.decimal == ",")
        self.log = Log(event_types, columns.numeric, columns.missing_numeric, zone, commas, own)
        self.features = [self._feature(place, name) for place, name in enumerate(config.features)]
        self.unmatched: dict[str, list[Finding]] = {}  # of the item's and the user's file

    def _feature(self, place: int, name: str) -> Feature:
        asked = self.config.features[name]
        recipe = FEATURES[asked.kind].build(asked, self.log)
        named = {local: f"a{place}.{local}" for local in recipe.as_of}
        expression = recipe.expression
        for local, column in named.items():
            expression = expression.replace(f"{{{local}}}", identifier(column))
        as_of = {named[local]: each for local, each in recipe.as_of.items()}
        return Feature(name, recipe, expression, as_of, asked.min_count or 1, asked.kind)

    def write(
        self,
        files: Callable[[list[str], list[FieldSpec]], ExampleFiles],
        attributes: dict[str, list[Source]],
        progress: Callable[[str], None],
    ) -> ExamplesSpec:
        """Makes the tables, checks them, and writes all parts. `attributes`: the item's and the user's file, where asked for."""
        making = labels.Labels(self.engine, self.label, self.log, self.ends)
        making.make()
        self._check_labels(making.left_out)
        for whose in ("item", "user"):
            if any(feature.kind == whose for feature in self.features):
                self._read_attributes(whose, attributes[f"{whose}s"])
        self.engine.table("example_values", self._values())
        self.engine.drop("examples")
        self._check_values(progress)
        words = {feature.name: self._words(place) for place, feature in enumerate(self.features) if feature.is_text}
        fields = [self._described(place, feature, words) for place, feature in enumerate(self.features)]
        writer = files(list(self.label.all_tasks()), fields)
        for part, code in zip(EXAMPLE_PARTS, range(3), strict=True):
            writer.write_part(part, self.engine.ordered_batches(self._part(code)))
        spec = writer.finish(words, making.left_out)
        for part in EXAMPLE_PARTS[1:]:
            for task in spec.tasks:
                if spec.positives[task][part] in (0, spec.known[task][part]):
                    progress(f"  warning: label {task}: the {part} part has not both classes, so most metrics say nothing there")
        self.engine.drop("example_values", *(f"words{place}" for place, feature in enumerate(self.features) if feature.is_text))
        return spec

    def _check_labels(self, left_out: dict[str, int]) -> None:
        """Raises InputError where there is nothing to learn."""
        tasks = self.label.all_tasks()
        main = f"training examples of label.{self.label.name}"
        for name in tasks:
            column = identifier(LABEL_PREFIX + name)
            query = f"SELECT {', '.join(f'count(*) FILTER (WHERE {column} = {value})' for value in (0, 1))} FROM examples"
            negatives, positives = self.engine.row(f"{query} WHERE part = {TRAIN}")
            if negatives and positives:
                continue
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
            if not negatives and not positives:
                what = (
                    f"there are no {main}" if name == self.label.name else f"the task {name} says nothing of any training example"
                )
                raise InputError(f"{what}{f' (left out: {reasons})' if reasons else ''}; {self._remedy(name)}")
            which = "1" if positives else "0"
            raise InputError(
                f"label {name}: one class only: all {positives or negatives:,} training examples are labelled {which}; "
                f"{self._remedy(name)}"
            )

    def _remedy(self, name: str) -> str:
        task = self.label.all_tasks()[name]
        where = "label" if task is self.label else f"label.tasks.{name}"
        return {
            "follow_up": f"check {where}.events, label.on and {where}.within against the log and the split",
            "column": f"check {where}.at_least against the values of {task.column}",
            "sampled": f"check {where}.events and the split",
        }[task.kind]

    def _read_attributes(self, whose: Literal["item", "user"], sources: list[Source]) -> None:
        """Table `of_item` or `of_user`: its code, and texts named `item.NAME`. Refuses ids given twice and bad numbers."""
        section = self.config.items if whose == "item" else self.config.users
        if section is None:
            return
        asked = [feature for feature in self.features if feature.kind == whose]
        names = sorted({str(self.config.features[feature.name].column) for feature in asked})
        wanted = {"id": section.id} | {f"{whose}.{name}": section.columns[name] for name in names}
        with reading(sources):
            self.engine.table("texts", rows_of(sources, wanted))
        file = f"{whose}s.file {sources[0].files[0]}"
        twice = self.engine.rows(
            "SELECT id, count(*) FROM texts WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1 ORDER BY id"
        )
        if twice:
            more = f", {len(twice) - 1:,} more ids likewise" if len(twice) > 1 else ""
            raise InputError(
                f"{file}: id {twice[0][0]!r} stands in {twice[0][1]:,} rows{more}, and features read it; leave one row an id"
            )
        for feature in asked:
            unread = f"{feature.recipe.text} IS NOT NULL AND {feature.expression} IS NULL" if feature.recipe.text else "false"
            for id_, shown in self.engine.rows(
                f"SELECT id, {feature.recipe.text or 'id'} FROM texts WHERE {unread} ORDER BY id LIMIT 1"
            ):
                raise InputError(
                    f"{file}: features.{feature.name} is numeric, but id {id_!r} has {shown!r} there; set type: categorical, "
                    f"a pattern that finds the number, or {whose}s.decimal"
                )
        described = "SELECT id FROM texts WHERE id IS NOT NULL"
        self.unmatched[whose] = unmatched(self.engine, whose, described, f"have a row in {whose}s.file")
        code, ids = ("i", "item_codes") if whose == "item" else ("u", "user_codes")
        texts = ", ".join(identifier(f"{whose}.{name}") for name in names)
        self.engine.table(f"of_{whose}", f"SELECT {code}, {texts} FROM {ids} JOIN texts ON texts.id = {ids}.{whose}_id")
        self.engine.drop("texts")

    def _values(self) -> str:
        """SELECT u, i, s, part, labels, history, f0..: the examples with all that is known of them, texts not yet coded."""
        wanted: dict[str, dict[str, AsOf]] = {"user": {"history": AsOf.count("user", "true")}}
        for feature in self.features:
            for name, each in feature.as_of.items():
                wanted.setdefault(each.of, {})[name] = each
        joins = []
        for of, columns in wanted.items():
            # Without one cut in time another user's later part may be earlier: of items only the training part is known.
            only_train = of == "item" and self.config.split.is_by_user
            log = f"(SELECT * FROM log WHERE part = {TRAIN})" if only_train else "log"
            self.engine.table(f"known_{of}", known(of, columns, log, "examples"))
            joins.append(f"JOIN known_{of} USING ({', '.join((*KEYS[of], 's'))})")
        kinds = {feature.kind for feature in self.features}
        joins += [f"LEFT JOIN of_{whose} USING ({whose[0]})" for whose in ("item", "user") if whose in kinds]
        tasks = [identifier(LABEL_PREFIX + task) for task in self.label.all_tasks()]
        values = [f"{self._typed(feature)} AS f{place}" for place, feature in enumerate(self.features)]
        return f"SELECT {', '.join(['u', 'i', 's', 'part', *tasks, 'history', *values])} FROM examples {' '.join(joins)}"

    def _typed(self, feature: Feature) -> str:
        if feature.is_text:
            return f"CAST({feature.expression} AS VARCHAR)"
        return f"CAST({clamped(feature.expression, LARGEST)} AS FLOAT) + CAST(0 AS FLOAT)"  # -0.0 becomes 0.0

    def _check_values(self, progress: Callable[[str], None]) -> None:
        """Raises InputError for a feature that is missing throughout a part where that cannot be chance; else tells of it."""
        if not self.features:
            return
        columns = ", ".join(f"count(f{place})" for place in range(len(self.features)))
        found = {part: counts for part, *counts in self.engine.rows(f"SELECT part, {columns} FROM example_values GROUP BY part")}
        for code, part in enumerate(EXAMPLE_PARTS):
            for feature, present in zip(self.features, found.get(code, ()), strict=False):
                if present:
                    continue
                what = f"features.{feature.name}: it is missing in all examples of the {part} part"
                if code == TRAIN:
                    raise InputError(f"{what}, so there is nothing to learn from it; {self._hint(feature)}")
                if feature.kind in OWN_KINDS:
                    raise InputError(f"{what}, though training has it; {self._hint(feature)}")
                progress(f"  warning: {what}, though training has it")

    def _hint(self, feature: Feature) -> str:
        if feature.kind in ("item", "user"):
            key = f"{feature.kind}s"
            ask = f"do the ids of {key}.file match the log's, and is {key}.columns right? Else leave the feature out"
            return "; ".join([*map(str, self.unmatched.get(feature.kind, [])), ask])
        if feature.kind == "column":
            return "is the column filled there? Else leave the feature out"
        return "check its events and within, or leave it out"

    def _words(self, place: int) -> list[str]:
        """The values of a categorical field in the training examples, most frequent first; table `words{place}` codes them."""
        value = f"f{place}"
        enough = self.features[place].min_count
        counted = f"SELECT {value}, count(*) AS n FROM example_values WHERE part = {TRAIN} AND {value} IS NOT NULL GROUP BY 1"
        code = f"CAST(row_number() OVER (ORDER BY n DESC, {value}) + {FIRST_VALUE - 1} AS INTEGER)"
        self.engine.table(f"words{place}", f"SELECT {value}, {code} AS code FROM ({counted} HAVING count(*) >= {enough}) AS a")
        return [word for (word,) in self.engine.rows(f"SELECT {value} FROM words{place} ORDER BY code")]

    def _described(self, place: int, feature: Feature, words: dict[str, list[str]]) -> FieldSpec:
        if feature.is_text:
            return FieldSpec(name=feature.name, kind="categorical", size=FIRST_VALUE + len(words[feature.name]))
        return FieldSpec(name=feature.name, kind="numeric", log1p=True, quantiles=self._quantiles(place))

    def _quantiles(self, place: int) -> list[float]:
        """The distinct training values at 1/64, 2/64, ... of their order, without the smallest value."""
        value = f"f{place}"
        counted = (
            f"SELECT {value} AS v, count(*) AS n FROM example_values WHERE part = {TRAIN} AND {value} IS NOT NULL GROUP BY 1"
        )
        self.engine.table("value_counts", f"SELECT v, n, sum(n) OVER (ORDER BY v) AS stop FROM ({counted}) AS a")
        # The values that hold a place k total / 64, rounded down, for some k of 1 to 63.
        total = "(SELECT max(stop) FROM value_counts)"
        places = f"(SELECT k * {total} // {QUANTILES} AS place FROM (SELECT unnest(range(1, {QUANTILES})) AS k) AS a) AS places"
        query = (
            f"SELECT DISTINCT v FROM value_counts JOIN {places} ON place >= stop - n AND place < stop WHERE stop > n ORDER BY v"
        )
        found = [float(v) for (v,) in self.engine.rows(query)]
        self.engine.drop("value_counts")
        return found

    def _part(self, code: int) -> str:
        """The examples of a part as the shards have them, in order."""
        joins = ["JOIN row_codes USING (u)", "JOIN catalogue USING (i)"]
        columns = ["row_index AS user", "item AS candidate", "s AS time", "CAST(history AS INTEGER) AS history"]
        columns += [identifier(LABEL_PREFIX + task) for task in self.label.all_tasks()]
        for place, feature in enumerate(self.features):
            value = f"coalesce(f{place}, CAST('NaN' AS FLOAT))"
            if feature.is_text:
                joins.append(f"LEFT JOIN words{place} ON example_values.f{place} = words{place}.f{place}")
                value = f"CASE WHEN example_values.f{place} IS NULL THEN {MISSING} ELSE coalesce(words{place}.code, {UNSEEN}) END"
            columns.append(f"{value} AS {identifier(FIELD_PREFIX + feature.name)}")
        order = "user, time, candidate"
        return f"SELECT {', '.join(columns)} FROM example_values {' '.join(joins)} WHERE part = {code} ORDER BY {order}"
