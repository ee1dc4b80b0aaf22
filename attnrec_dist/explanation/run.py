"""`attnrec explain`: what a trained model looked at, as text, heat map and one page; and whether its weights can be believed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnrec_dist.data.eval_cases import Part
from attnrec_dist.data.example_format import ExamplePart
from attnrec_dist.data.examples import ExampleSet
from attnrec_dist.distributed import threads
from attnrec_dist.errors import ConfigError, MissingExtraError, StorageError
from attnrec_dist.explanation.attribution import Explained, Words, batches, explain, moved_by_events, moved_by_fields
from attnrec_dist.explanation.faithfulness import of_events, of_fields
from attnrec_dist.explanation.heat_map import heat_map
from attnrec_dist.explanation.html import page
from attnrec_dist.explanation.report import (
    Listed,
    Picture,
    cases,
    chosen_to_show,
    mean_weights,
    of_experts,
    told,
    weights_by_event,
)
from attnrec_dist.inference.histories import stored_histories
from attnrec_dist.inference.load import TrainedModel, load_model
from attnrec_dist.models.base import RankingModel
from attnrec_dist.recommendation.recommend import Recommender
from attnrec_dist.run_dir import write_whole
from attnrec_dist.storage.outputs import check_folder

MOST_OF_A_USER = 5  # newest examples of a customer who was asked for
MOST_LISTS = 500  # customers whose lists are made
LIST_LENGTH = 3
DRAWS = 3  # other examples, or other events, that a change is averaged over
PAGE, HEAT_MAP = "index.html", "weights.png"


@dataclass
class ExplainRequest:
    """What `attnrec explain` was asked for."""

    output: Path
    users: list[str] | None = None
    split: Part = "test"
    checkpoint: str = "best"
    data: str | None = None
    show: int = 8
    sample: int = 2_000
    seed: int = 0


def explain_run(run_dir: Path, request: ExplainRequest) -> Picture:
    """Prints the text to stdout, writes page and heat map; says on stderr where. Raises UserError."""
    check_folder(request.output, "--output")
    for name, least in (("show", 1), ("sample", 1)):
        if getattr(request, name) < least:
            raise ConfigError(f"--{name} {getattr(request, name)}: at least {least} is needed")
    trained = load_model(run_dir, request.checkpoint, request.data, task=None)
    with threads(trained.threads):
        picture = pictured(trained, request)
    print(told(picture), end="", flush=True)
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError.of(error, f"making {request.output}") from None
    write_whole(request.output / PAGE, page(picture))
    print(request.output / PAGE, file=sys.stderr)
    if picture.segments:
        try:
            heat_map(picture, request.output / HEAT_MAP)
            print(request.output / HEAT_MAP, file=sys.stderr)
        except MissingExtraError as error:
            print(f"attnrec: no picture: {error}", file=sys.stderr)
    return picture


def pictured(trained: TrainedModel, request: ExplainRequest) -> Picture:
    """What the model of a run looked at."""
    name = str(trained.tree["model"]["name"])
    if trained.model_config.expert_names:
        return of_lists(trained, request)
    if trained.model.task != "ranking":
        raise ConfigError(
            f"{trained.run_dir.config}: model {name} gives no weights to look at; those of the ranking task and mixture do"
        )
    part: ExamplePart = request.split
    examples = ExampleSet.open(trained.data, part)
    if not len(examples):
        raise ConfigError(f"{trained.config.path}: the {request.split} part has no examples; name another with --split")
    sampled = sample(len(examples), request.sample, request.seed)
    picture, explained = of_sample(trained.model, trained, examples, sampled, request.seed)
    picture.title = f"What {trained.run_dir.path.name} looked at"
    picture.subtitle = (
        f"Model {name}, {trained.checkpoint.name}, {len(sampled):,} of {len(examples):,} examples of the {request.split} part, "
        f"seed {request.seed}"
    )
    shown = sampled[chosen_to_show(explained, request.show)] if request.users is None else of_customers(examples, request.users)
    asked = explain(trained.model, batches(examples, shown, trained.config.max_length), trained.device)
    picture.cases = cases(asked, Words(trained.data))
    return picture


def sample(examples: int, most: int, seed: int) -> np.ndarray:
    """Numbers of examples drawn without repetition, in random order: int64 [<= most]."""
    return np.random.default_rng([seed, 1]).permutation(examples)[:most].astype(np.int64)


def of_sample(
    model: RankingModel, trained: TrainedModel, examples: ExampleSet, ids: np.ndarray, seed: int
) -> tuple[Picture, Explained]:
    """The picture of all fields and segments, with the check of the weights; nothing of single examples yet."""
    parts = list(batches(examples, ids, trained.config.max_length))
    explained = explain(model, parts, trained.device)
    words = Words(trained.data)
    picture = Picture(
        title="",
        task=explained.task,
        subtitle="",
        field_names=explained.field_names if explained.fields is not None else (),
        segments=mean_weights(explained, trained.data.manifest.num_items),
        event_segments=weights_by_event(explained, words),
    )
    if explained.fields is not None:
        moved = moved_by_fields(model, parts, trained.device, DRAWS, seed)
        picture.moved = np.nanmean(moved, axis=0) if np.isfinite(moved).any() else None
        checked = of_fields(explained.fields, moved, explained.users, seed)
        if checked is None:
            picture.notes.append("All fields have the same weight in every example, so there is nothing to explain by weights.")
        else:
            picture.faithfulness.append(checked)
    if explained.history is not None and len(explained.history):
        top, others = moved_by_events(model, parts, explained, trained.device, DRAWS, seed)
        picture.faithfulness.append(of_events(top, others, explained.users, seed))
    return picture, explained


def of_lists(trained: TrainedModel, request: ExplainRequest) -> Picture:
    """What the experts of a mixture had to say of the items that customers would be shown at the end of the log."""
    data, recommender = trained.data, Recommender(trained)
    if request.users is None:
        users = sample(data.num_rows, min(request.sample, MOST_LISTS), request.seed)
        names = [str(each) for each in data.users()["id"].take(users).to_pylist()]
    else:
        names = request.users
        unknown = [name for name, index in zip(names, data.user_index(names)) if index < 0]
        if unknown:
            raise ConfigError(f"--users: {', '.join(unknown[:5])}: not among the customers of {data.path}")
    found: list[Listed] = []
    for histories in stored_histories(data, names):
        known = histories.known_only(data.manifest.num_items)
        lists = [best for some in recommender.lists(known, LIST_LENGTH, np.empty(0, np.int64), False) for best in some]
        for place, best in enumerate(lists):
            had = set(data.item_ids(np.unique(known.part(place, place + 1).items)))
            found += [Listed(known.names[place], each, each.item in had) for each in best if each.shares]
    if not found:
        raise ConfigError(f"{data.path}: none of these customers has an event of a known item, so no expert was asked")
    picture = of_experts(found, request.show if request.users is None else len(names))
    picture.title = f"What {trained.run_dir.path.name} looked at"
    picture.subtitle = (
        f"Model {trained.tree['model']['name']}, {trained.checkpoint.name}, the first {LIST_LENGTH} items of {len(names):,} "
        f"customers' lists at the end of the log"
    )
    return picture


def of_customers(examples: ExampleSet, names: list[str]) -> np.ndarray:
    """Numbers of the newest examples of each customer. Raises ConfigError for one that is unknown or has none."""
    indices = examples.data.user_index(names)
    unknown = [name for name, index in zip(names, indices) if index < 0]
    if unknown:
        raise ConfigError(f"--users: {', '.join(unknown[:5])}: not among the customers of {examples.data.path}")
    rows = examples.column("user")
    first, stop = np.searchsorted(rows, indices), np.searchsorted(rows, indices, side="right")
    without = [name for name, count in zip(names, stop - first) if count == 0]
    if without:
        raise ConfigError(f"--users: {', '.join(without[:5])}: no example in the {examples.part} part; try another --split")
    return np.concatenate([np.arange(max(a, b - MOST_OF_A_USER), b) for a, b in zip(first, stop)])
