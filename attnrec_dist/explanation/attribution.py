"""What a ranking model looked at: the weights of fields and of past behaviours for chosen examples, with words instead of codes.

n examples, K fields that share the weight, T tokens of all histories, B examples of a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnrec_dist.batch import MISSING, UNSEEN, RankingBatch
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.data.samples import ExampleSamples
from attnrec_dist.errors import ConfigError
from attnrec_dist.inference.words import ago, moment, names
from attnrec_dist.models.base import RankingModel
from attnrec_dist.models.layers.field_vectors import FieldVectors
from attnrec_dist.terminal.layout import counted

AT_ONCE = 256
BUILT_IN = ("candidate", "moment", "history")  # fields that the data set does not declare


@dataclass
class Explained:
    """Weights and predictions of n examples, in the order in which they were asked for."""

    task: str  # whose probability it is: the main label
    users: np.ndarray  # int64 [n]
    candidates: np.ndarray  # int64 [n]
    times: np.ndarray  # int64 [n] unix seconds
    labels: np.ndarray  # float32 [n] 0 or 1
    logits: np.ndarray  # float64 [n]
    values: dict[str, np.ndarray]  # declared fields: codes or numbers, [n]
    offsets: np.ndarray  # int64 [n + 1] whose the tokens are
    items: np.ndarray  # int64 [T]
    ages: np.ndarray  # int64 [T] seconds before the moment
    events: np.ndarray  # int64 [T]
    field_names: tuple[str, ...] = ()
    fields: np.ndarray | None = None  # float64 [n, K], each row's sum 1; None where the model weighs no fields
    history: np.ndarray | None = None  # float64 [T]; None where the model tells no weights of events

    def __len__(self) -> int:
        return len(self.users)

    @property
    def probabilities(self) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-self.logits)))

    def span(self, place: int) -> slice:
        """The tokens of one example."""
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))

    def had_before(self) -> np.ndarray:
        """Whether the candidate is among what the model saw of the history, bool [n]."""
        row = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return np.bincount(row, weights=self.items == self.candidates[row], minlength=len(self)) > 0


def batches(examples: ExampleSet, ids: np.ndarray, max_length: int) -> Iterator[RankingBatch]:
    """The examples in batches of nearly equal size, so that none is much smaller than the others."""
    samples = ExampleSamples(examples, max_length)
    for part in np.array_split(ids, max(1, -(-len(ids) // AT_ONCE))):
        yield samples.batch(part)


@torch.inference_mode()
def explain(model: RankingModel, parts: Iterator[RankingBatch] | list[RankingBatch], device: torch.device) -> Explained:
    """Asks the model, with explain=True, about every batch. Raises ConfigError for a model that weighs nothing."""
    task = main_task(model)
    found: list[Explained] = []
    for batch in parts:
        output = model(batch.to(device), explain=True)
        weights = {name: of.double().cpu().numpy() for name, of in output.explanation.items()}
        if not weights:
            raise ConfigError("this model gives no weights to look at; feature_attention and target_attention do")
        row = np.repeat(np.arange(len(batch.users)), np.diff(batch.offsets.numpy()))
        found.append(
            Explained(
                task=task,
                users=batch.users.numpy(),
                candidates=batch.candidates.numpy(),
                times=batch.times.numpy(),
                labels=np.where(batch.label_weights[task].numpy() > 0, batch.labels[task].numpy(), np.nan),
                logits=output.logits[task].double().cpu().numpy(),
                values={name: of.numpy() for name, of in batch.fields.items()},
                offsets=batch.offsets.numpy().astype(np.int64),
                items=batch.items.numpy(),
                ages=batch.times.numpy()[row] - batch.history_times.numpy(),
                events=batch.events["event"].numpy() if "event" in batch.events else np.zeros(len(batch.items), np.int64),
                field_names=model.field_names,
                fields=weights.get("fields"),
                history=weights.get("history"),
            )
        )
    return joined(found)


def main_task(model: RankingModel) -> str:
    return model.tasks[0]


def joined(parts: list[Explained]) -> Explained:
    """Several results as one."""
    first = parts[0]

    def together(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    plain: tuple[str, ...] = ("users", "candidates", "times", "labels", "logits", "items", "ages", "events", "fields", "history")
    changes: dict[str, Any] = {name: together(name) for name in plain}
    changes["values"] = {name: np.concatenate([part.values[name] for part in parts]) for name in first.values}
    changes["offsets"] = np.append(0, np.cumsum(np.concatenate([np.diff(part.offsets) for part in parts])))
    return dataclasses.replace(first, **changes)


class Words:
    """Names for what a data set holds as numbers."""

    def __init__(self, data: DataSet):
        self.data = data
        self.event_types = data.manifest.event_types
        self.kinds = {field.name: field.kind for field in data.manifest.examples.fields} if data.manifest.examples else {}
        self.words: dict[tuple[str, int], str] = {}
        if "categorical" in self.kinds.values():
            self.words = {(row["field"], row["code"]): row["value"] for row in data.vocabulary().to_pylist()}

    def items(self, indices: np.ndarray) -> list[str]:
        """Titles, ids where there is none."""
        return names(self.data, indices)

    def users(self, indices: np.ndarray) -> list[str]:
        return [str(each) for each in self.data.users()["id"].take(np.asarray(indices, np.int64)).to_pylist()]

    def event(self, code: int) -> str:
        return self.event_types[code] if len(self.event_types) > 1 else ""

    def moment(self, time: int) -> str:
        own = self.data.manifest.own_number(time)
        return moment(time) if own is None else f"{own} of the history" if self.data.manifest.times_are_places else own

    def ago(self, age: int) -> str:
        return f"{counted(age, self.data.manifest.place_word)} ago" if self.data.manifest.times_are_places else ago(age)

    def value(self, field: str, value: float) -> str:
        """What a declared field says, in words."""
        if self.kinds.get(field) == "categorical":
            reserved = {UNSEEN: "(unseen in training)", MISSING: "(missing)"}
            code = int(value)
            return reserved.get(code) or self.words.get((field, code), str(code))
        return "(missing)" if np.isnan(value) else f"{value:.4g}"

    def of_field(self, explained: Explained, place: int, field: str) -> str:
        """What any field says of one example."""
        if field in explained.values:
            return self.value(field, explained.values[field][place])
        if field == "candidate":
            return self.items(explained.candidates[place : place + 1])[0]
        if field == "moment":
            return self.moment(int(explained.times[place]))
        events = int(np.diff(explained.offsets)[place])
        return counted(events, "event") if field == "history" else ""


# What leaving something out changes


@torch.inference_mode()
def moved_by_fields(model: RankingModel, parts: list[RankingBatch], device: torch.device, draws: int, seed: int) -> np.ndarray:
    """How far the main logit moves when one field says what it says in another example, float64 [n, K]: mean |difference|.

    The field's vector is taken from another example of the batch, drawn anew `draws` times, and everything else stays: so the
    model is never shown an input that it could not have met, as a made-up "missing" might be. NaN in a batch of one.
    """
    task = main_task(model)
    random = np.random.default_rng([seed, 2])
    moved = []
    for part in parts:
        batch = part.to(device)
        own = model.fields
        fields, weights = own(batch)  # type: ignore[operator]
        x = fields.whole()
        places = [own.names.index(name) for name in model.field_names]  # type: ignore[union-attr,operator,call-arg]
        size = len(batch.users)
        shifts = torch.from_numpy(random.integers(1, max(2, size), draws)).to(device)
        here = torch.arange(size, device=device)
        far = torch.full((size, len(places)), torch.nan if size < 2 else 0.0, dtype=torch.float64, device=device)
        stub = _Fixed()
        model.fields = stub
        try:
            stub.given = FieldVectors(x), weights
            before = model(batch).logits[task].double()
            for shift in shifts if size > 1 else ():
                others = x[(here + shift) % size]
                for column, field in enumerate(places):
                    swapped = x.clone()
                    swapped[:, field] = others[:, field]
                    stub.given = FieldVectors(swapped), weights
                    far[:, column] += (model(batch).logits[task].double() - before).abs() / draws
        finally:
            model.fields = own
        moved.append(far.cpu().numpy())
    return np.concatenate(moved)


class _Fixed(nn.Module):
    """Stands in for a model's fields: gives what it was told to."""

    given: tuple[FieldVectors, Tensor | None]

    def forward(self, batch: RankingBatch) -> tuple[FieldVectors, Tensor | None]:
        return self.given


@torch.inference_mode()
def moved_by_events(
    model: RankingModel, parts: list[RankingBatch], explained: Explained, device: torch.device, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """How far the main logit moves without the event of the highest weight, and without another one, float64 [n] each.

    The other is drawn at random `draws` times; NaN where a history has no two events.
    """
    if explained.history is None:
        raise ConfigError("the model tells no weights of events")
    task = main_task(model)
    random = np.random.default_rng([seed, 3])
    sizes = np.diff(explained.offsets)
    row = np.repeat(np.arange(len(explained)), sizes)
    order = np.lexsort((-np.abs(explained.history), row))
    top = np.where(sizes > 0, order[np.minimum(explained.offsets[:-1], max(0, len(order) - 1))] if len(order) else 0, -1)
    enough = sizes > 1

    def without(tokens: np.ndarray) -> np.ndarray:
        logits, first, token = [], 0, 0
        for batch in parts:
            n, held = len(batch.users), len(batch.items)
            gone = tokens[first : first + n][enough[first : first + n]] - token
            logits.append(model(_without(batch, gone).to(device)).logits[task].double().cpu().numpy())
            first, token = first + n, token + held
        return np.concatenate(logits)

    of_top = np.abs(without(top) - explained.logits)
    of_others = np.zeros(len(explained))
    for _ in range(draws):
        place = random.integers(0, np.maximum(sizes - 1, 1))  # among the others: the top one is jumped over
        other = explained.offsets[:-1] + place
        other += (other >= top) & enough
        of_others += np.abs(without(other) - explained.logits) / draws
    return np.where(enough, of_top, np.nan), np.where(enough, of_others, np.nan)


def _without(batch: RankingBatch, gone: np.ndarray) -> RankingBatch:
    """The batch with some tokens taken out of their histories."""
    keep = torch.ones(len(batch.items), dtype=torch.bool)
    keep[torch.from_numpy(gone)] = False
    kept = torch.cat([torch.zeros(1, dtype=torch.int64), keep.cumsum(0)])
    offsets = kept[batch.offsets.long()]
    return dataclasses.replace(
        batch,
        items=batch.items[keep],
        history_times=batch.history_times[keep],
        events={name: values[keep] for name, values in batch.events.items()},
        offsets=offsets.to(batch.offsets.dtype),
        max_length=int(offsets.diff().max()) if len(offsets) > 1 else 0,
    )
