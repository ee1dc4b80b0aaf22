"""RecTools 0.19, SASRecModel: losses `softmax`, and `sampled_softmax` with negatives of each place's own."""

from __future__ import annotations

import time
import warnings

import pandas as pd
import protocol
import pytorch_lightning as lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Watch(lightning.Callback):
    def __init__(self, clock: protocol.Clock):
        self.clock = clock

    def __deepcopy__(self, memo: dict) -> Watch:
        return self  # RecTools trains with a copy of the trainer; the clock shall be ours

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.clock.step(int((batch["y"] != 0).sum()))


def main() -> None:
    asked = protocol.arguments()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    lightning.seed_everything(0)
    clock = protocol.Clock()
    histories = protocol.read(asked.histories)

    def trainer() -> lightning.Trainer:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        return lightning.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[Watch(clock)], limit_train_batches=asked.steps, **quiet
        )

    model = SASRecModel(
        n_factors=64,
        n_blocks=2,
        n_heads=2,
        dropout_rate=0.2,
        session_max_len=asked.max_length,
        lr=1e-3,
        batch_size=asked.batch,
        loss="softmax" if asked.loss == "softmax" else "sampled_softmax",
        n_negatives=asked.negatives,
        epochs=1,
        get_trainer_func=trainer,
    )
    model.fit(dataset(histories, without=2))
    clock.trained()
    more = {}
    if asked.evaluate:
        known = dataset(histories, without=1)
        started = time.perf_counter()
        lists = model.recommend(users=list(range(len(histories))), dataset=known, k=10, filter_viewed=True)
        more["users/s"] = len(histories) / (time.perf_counter() - started)
        assert lists[Columns.User].nunique() == len(histories)
    clock.report(**more)


def dataset(histories: list[list[int]], without: int) -> Dataset:
    rows = [(user, item, place) for user, items in enumerate(histories) for place, item in enumerate(items[:-without])]
    frame = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, "place"])
    frame[Columns.Datetime] = pd.Timestamp("2020-01-01") + pd.to_timedelta(frame.pop("place"), unit="s")
    frame[Columns.Weight] = 1.0
    return Dataset.construct(frame)


if __name__ == "__main__":
    main()
