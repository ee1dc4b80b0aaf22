"""Loads a trained model with the data set that it was trained on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnrec_dist.batch import SequenceBatch, TaskName
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.dataset import DataSet
from attnrec_dist.data.fingerprint import confirm
from attnrec_dist.data.spec import data_spec
from attnrec_dist.distributed import World
from attnrec_dist.errors import CheckpointError, DataError, RunDirError
from attnrec_dist.losses import DEFAULT, loss_config_class
from attnrec_dist.models import build_model, model_config_class, model_task
from attnrec_dist.models.base import Model, ModelConfig, NextItemModel, Scored
from attnrec_dist.run_dir import RunDir, read_marker, read_weights, refuse_other_keys
from attnrec_dist.settings import build, read_yaml


@dataclass(repr=False)
class TrainedModel:
    """A model with its weights, on a device, ready to score; and what it was trained on."""

    run_dir: RunDir
    checkpoint: Path
    config: DataConfig
    tree: dict[str, Any]  # the run's whole configuration
    data: DataSet
    model: Any  # a NextItemModel or a RankingModel
    model_config: ModelConfig
    device: torch.device

    @property
    def threads(self) -> int:
        """CPU threads that it scores with, so that results do not depend on the machine's cores."""
        found = (self.tree.get("evaluation") or {}).get("threads", 1)
        if type(found) is not int or not 1 <= found <= 1024:
            raise RunDirError(f"{self.run_dir.config}: evaluation.threads: {found!r} is no number from 1 to 1024; set it right")
        return found

    @property
    def where(self) -> str:
        """The file that `tree` was read from."""
        return str(self.run_dir.config)

    def __repr__(self) -> str:
        return f"{self.run_dir.path}, {self.tree['model']['name']}, {self.checkpoint.name}, on {self.device}"


def load_model(
    path: Path,
    checkpoint: str = "best",
    data: str | None = None,
    device: torch.device | None = None,
    task: TaskName | None = "next_item",
) -> TrainedModel:
    """The model of a run directory. Raises RunDirError, CheckpointError or DataError.

    `data` stands in for the run's `data.path`, where the data set has moved; one with another fingerprint is refused, and so is a
    model of another task than `task` (None: any will do).
    """
    run_dir = RunDir.existing(path)
    where = str(run_dir.config)
    tree = read_yaml(run_dir.config)
    sections = tree.get("data"), tree.get("model")
    if not all(isinstance(section, dict) for section in sections):
        raise RunDirError(f"{where}: lacks the sections data and model, so it is no run of `attnrec train`")
    config = build(DataConfig, {**tree["data"], **({"path": data} if data else {})}, where)
    name = tree["model"].get("name")
    if task not in (None, model_task(name)):
        raise RunDirError(
            f"{path}: holds the model {name} of the task {model_task(name)}, but this is done with models of {task}; "
            f"type attnrec evaluate {path} to see what it does"
        )
    model_config = build(model_config_class(name), tree["model"], where)
    try:
        data_set = DataSet.open(Path(config.path), verify=False)
    except DataError as error:
        if data or Path(config.path).exists():
            raise
        relative = "" if Path(config.path).is_absolute() else "relative to the current directory; "
        raise DataError(f"{error}. The path stands in {where}, {relative}name the data set with --data DIR") from None
    folder = run_dir.checkpoint(checkpoint)
    marker = read_marker(folder)
    if marker.data_fingerprint != data_set.manifest.fingerprint:
        raise CheckpointError(
            f"{folder}: was trained on the data set {marker.data_fingerprint}, but {config.path} is "
            f"{data_set.manifest.fingerprint}; name the right one with --data"
        )
    refuse_other_keys(folder, marker, tree)
    if marker.manifest is not None and marker.manifest != data_set.manifest.checksum:
        confirm(data_set)
    elif data_set.note and World.current(torch.device("cpu")).is_main:
        print(f"attnrec: {data_set.note}", file=sys.stderr, flush=True)
    model = build_model(model_config, data_spec(data_set, config))
    if model.table is not None:
        loss = tree.get("loss") or {}
        model.table.unit = build(loss_config_class(loss.get("name", DEFAULT[model_task(name)])), loss, where).scores_cosines
    model = _with_weights(model, folder, where)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return TrainedModel(run_dir, folder, config, tree, data_set, model.to(device).eval(), model_config, device)


def _with_weights(model: Model, folder: Path, where: str) -> Model:
    """The model with a checkpoint's weights, in their type. Raises CheckpointError where they do not fit."""
    weights = read_weights(folder)
    if next(iter(weights.values())).dtype == torch.float64:
        model = model.double()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}: its weights do not fit the model of {where}: {str(error).splitlines()[-1].strip()}"
        ) from None
    return model


@torch.inference_mode()
def scored(model: NextItemModel, batch: SequenceBatch, device: torch.device) -> Scored:
    """Scores of the whole catalogue for each query, and the experts' shares where the model has experts."""
    only_ends = batch.asks_at_ends()  # asked of the host
    return model.scored(batch.to(device), only_ends)


def score(model: NextItemModel, batch: SequenceBatch, device: torch.device) -> Tensor:
    """Scores of the whole catalogue for each query, [P, V]."""
    return scored(model, batch, device).scores
