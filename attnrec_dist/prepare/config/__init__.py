"""The keys of a configs/prepare/*.yaml file put together (sections.py holds them), and the checks that need no data."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from attnrec_dist.errors import ConfigError
from attnrec_dist.paths import placed
from attnrec_dist.prepare.config.choice import ID_LISTS, BasketsSection, FiltersSection, SplitSection
from attnrec_dist.prepare.config.input_sections import LINE_FORMATS, EntityFile, InputSection, ItemsSection
from attnrec_dist.prepare.config.sections import (
    LINE_COLUMNS,
    ColumnsSection,
    EngineSection,
    GraphSection,
    OutputSection,
    StatisticsSection,
    check_event_kinds,
)
from attnrec_dist.prepare.durations import check_name
from attnrec_dist.prepare.examples.config import LabelSection
from attnrec_dist.prepare.examples.features import FeatureSection
from attnrec_dist.settings import Section, apply_overrides, build, read_yaml


class PrepareConfig(Section):
    input: InputSection = Field(description="the raw log")
    columns: ColumnsSection = Field(description="what its columns mean; not with input.format user_items or pairs")
    items: ItemsSection | None = Field(default=None, description="texts about the items")
    users: EntityFile | None = Field(
        default=None, description="texts about the users, for features; none is kept in the data set"
    )
    filters: FiltersSection = Field(default=FiltersSection(), description="which events stay")
    baskets: BasketsSection = Field(default=BasketsSection(), description="which events go together in a basket")
    split: SplitSection = Field(default=SplitSection(), description="training, validation and test part")
    statistics: StatisticsSection = Field(default=StatisticsSection(), description="what is counted over the items")
    label: LabelSection | None = Field(default=None, description="which examples there are for the task ranking; null: none")
    features: dict[str, FeatureSection] = Field(default={}, description="what is known of an example: name -> kind and its keys")
    output: OutputSection = Field(description="where the data set goes")
    engine: EngineSection = Field(
        default=EngineSection(), description="how much of the machine to use; changes nothing in the result"
    )

    @model_validator(mode="before")
    @classmethod
    def _implied_by_lines(cls, tree: Any) -> Any:
        """Fills in what user_items and pairs leave no choice about, so that it need not be written; see _places_are_no_times."""
        log = tree.get("input") if isinstance(tree, dict) else None
        if not isinstance(log, dict) or log.get("format") not in LINE_FORMATS:
            return tree
        if tree.get("columns") not in (None, LINE_COLUMNS.model_dump(mode="json")):
            raise ValueError(
                f"columns: input.format {log['format']} has none to name, a line's words are the user and the items; leave it out"
            )
        statistics = {"graph": {}} | (tree.get("statistics") or {})
        return tree | {
            "columns": LINE_COLUMNS.model_dump(mode="json"),
            "split": {"kind": "leave_one_out"} | (tree.get("split") or {}),
            "statistics": statistics | {"graph": {"kind": "next"} | (statistics["graph"] or {})},
        }

    @model_validator(mode="after")
    def _places_are_no_times(self) -> PrepareConfig:
        if not self.has_places:
            return self
        is_lines = self.input.format in LINE_FORMATS
        lines = f"input.format {self.input.format}" if is_lines else f"columns.timestamp.unit {self.columns.timestamp.unit}"
        if self.split.kind == "time":
            kind = "leave_one_out" if self.has_no_baskets else "leave_last_basket"
            raise ValueError(f"split.kind: time needs times that users share, {lines} has places only; set it to {kind}")
        if self.baskets.gap is not None:
            raise ValueError(f"baskets.gap: {lines} has no times, so no gaps between them; leave it out")
        if self.split.kind == "leave_last_basket" and self.has_no_baskets:
            raise ValueError(f"split.kind: {lines} has no baskets, each event its own place; set it to leave_one_out")
        if self.statistics.graph.kind == "basket" and self.has_no_baskets:
            raise ValueError(f"statistics.graph.kind: {lines} has no baskets, each event its own place; set it to next or none")
        if is_lines and self.filters.where:
            raise ValueError(f"filters.where: {lines} has no numbers; leave it out")
        return self

    @model_validator(mode="after")
    def _known_events(self) -> PrepareConfig:
        column, asked = self.columns.event, named_events(self)
        if asked and column is None:
            raise ValueError(
                f"{next(iter(asked))} names kinds of events, but columns.event is not set; set it, or leave them out"
            )
        if column is not None and column.types is not None:
            check_event_kinds(asked, column.types)
        return self

    @model_validator(mode="after")
    def _fitting_examples(self) -> PrepareConfig:
        check_examples(self)
        if self.label and self.baskets.gap and any(task.kind == "follow_up" for task in self.label.all_tasks().values()):
            raise ValueError(
                "baskets.gap: the order inside a basket is lost, and label.kind follow_up asks for it; leave one out"
            )
        return self

    @property
    def has_places(self) -> bool:
        """Whether the log has no times, only the place of each event, or of its basket, in its user's history."""
        return self.has_no_baskets or self.columns.timestamp.unit == "order"

    @property
    def has_no_baskets(self) -> bool:
        """Whether each event has a place of its own."""
        return self.input.format in LINE_FORMATS or self.columns.timestamp.unit == "place"

    def with_graph(self, rule: GraphSection) -> PrepareConfig:
        return self.model_copy(update={"statistics": self.statistics.model_copy(update={"graph": rule})})

    def without_paths(self) -> dict[str, Any]:
        """What the manifest keeps: all that shapes the result, nothing that names this machine."""
        files: dict[str, Any] = {"input": {"files": True, "join": {"file"}}, "items": {"file"}, "users": {"file"}}
        files["filters"] = set(ID_LISTS)
        if self.filters.max_user_events is None:  # the key came later than the fingerprint
            files["filters"].add("max_user_events")
        return self.model_dump(mode="json", exclude=files | {"output": True, "engine": True})


def load_prepare_config(path: Path, overrides: dict[str, Any], say: Callable[[str], None] = lambda _: None) -> PrepareConfig:
    """The YAML file with overrides applied and checked, its paths placed, of which `say` is told. Raises ConfigError."""
    tree = read_yaml(path)
    if "columns" not in tree and {"data", "model"} <= tree.keys():
        raise ConfigError(f"{path}: this is a run's YAML (it has data, model); type attnrec train {path}")
    return placed(build(PrepareConfig, apply_overrides(tree, overrides), str(path), overrides), path, overrides, say)


def check_examples(config: PrepareConfig) -> None:
    """Cross-checks of label and features with the other sections. Raises ValueError."""
    label, is_by_user = config.label, config.split.is_by_user
    if label is None:
        if config.features:
            raise ValueError(
                "features: there is no label, so there are no examples to have them; add label, or leave features out"
            )
        return
    for name, task in label.all_tasks().items():
        where = "label" if task is label else f"label.tasks.{name}"
        _check_column(config, where, task.column)
        if task.kind == "follow_up" and is_by_user:
            raise ValueError(
                f"{where}: kind follow_up needs one cut in time for all users; set split.kind: time, or another kind"
            )
    for name, feature in config.features.items():
        where = f"features.{name}"
        try:
            check_name(name)
        except ValueError as error:
            raise ValueError(f"features: {error}") from None
        if feature.kind in ("item", "user"):
            _check_attribute(config, where, feature)
        else:
            _check_column(config, where, feature.column)
        if feature.kind == "column" and label.kind == "sampled":
            raise ValueError(
                f"{where}: a drawn item has no event of its own, so the column would tell the label; use ratio or mean"
            )
        if feature.kind in ("hour", "weekday") and config.has_places:
            raise ValueError(f"{where}: the log has places instead of times; leave it out")


def named_events(config: PrepareConfig) -> dict[str, list[str]]:
    """{config path: kinds of events that it names}, of all sections."""
    asked = {"statistics.events": config.statistics.events}
    if config.label is not None:
        asked["label.on"] = config.label.on
        for name, task in config.label.all_tasks().items():
            asked["label.events" if task is config.label else f"label.tasks.{name}.events"] = task.events
    asked |= {f"features.{name}.events": feature.events for name, feature in config.features.items()}
    return {where: kinds for where, kinds in asked.items() if kinds}


def _check_column(config: PrepareConfig, where: str, column: str | None) -> None:
    known = config.columns.numeric
    if column is not None and column not in known:
        raise ValueError(f"{where}.column: {column!r} is not in columns.numeric{_close(column, known)}; add it there")


def _check_attribute(config: PrepareConfig, where: str, feature: FeatureSection) -> None:
    section, name = (config.items, "items") if feature.kind == "item" else (config.users, "users")
    if section is None:
        raise ValueError(f"{where}: kind {feature.kind} needs the section {name} with file, id and columns; add it")
    if feature.column not in section.columns:
        close = _close(str(feature.column), list(section.columns))
        raise ValueError(f"{where}.column: {feature.column!r} is not a name in {name}.columns{close}; add it there")


def _close(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else f" ({', '.join(known) or 'empty'})"
