"""RecBole 1.2.1, SASRec: loss `softmax` (its CE), a row a target, `batch` rows a step. It has no softmax over shared negatives.

Its lists are `full_sort_predict` with our mask of what a user has had: it masks nothing for sequential models.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import protocol
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole  # noqa: F401  its readme's import, which every user pays for
from recbole.utils import get_model, get_trainer, init_seed


def main() -> None:
    asked = protocol.arguments()
    if asked.loss != "softmax":
        sys.exit("RecBole's SASRec has no loss over shared negatives")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    clock = protocol.Clock()
    histories = protocol.read(asked.histories)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes log/ and saved/ where it stands
        write(histories, Path("data/log/log.inter"))
        config = Config(model="SASRec", dataset="log", config_dict=settings(asked))
        init_seed(0, True)
        data = create_dataset(config)
        batches, validation, test = data_preparation(config, data)
        init_seed(0, True)
        model = get_model("SASRec")(config, batches._dataset)
        trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
        if asked.until:
            until(model, trainer, (data, batches, validation), histories, protocol.Curve(asked.until))
            return
        trainer._train_epoch(Watched(batches, asked.steps, clock), 0)
        clock.trained()
        more = {}
        if asked.evaluate:
            started = time.perf_counter()
            listed = lists(model, data, test, [items[:-1] for items in histories])
            more["users/s"] = len(histories) / (time.perf_counter() - started)
            assert len(listed) == len(histories)
        os.chdir("/")
    clock.report(**more)


def settings(asked) -> dict:
    return {
        "data_path": "data",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": asked.max_length,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "metrics": ["Hit", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "train_batch_size": asked.batch,
        "eval_batch_size": 256,
        "learning_rate": 1e-3,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "hidden_size": 64,
        "inner_size": 64,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dropout_prob": 0.2,
        "attn_dropout_prob": 0.2,
        "use_gpu": False,
        "show_progress": False,
        "seed": 0,
    }


class Watched:
    """Its loader, cut off after so many batches."""

    shuffle = True

    def __init__(self, batches, steps: int, clock: protocol.Clock):
        self.batches, self.steps, self.clock = batches, steps, clock

    def __iter__(self) -> Iterator:
        for batch in islice(self.batches, self.steps):
            yield batch
            self.clock.step(len(batch))  # when the next one is asked for


def write(histories: list[list[int]], path: Path) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"{user}\t{item}\t{place}\n" for user, items in enumerate(histories) for place, item in enumerate(items))


@torch.no_grad()
def lists(model, data, batches, histories: list[list[int]]) -> dict[int, np.ndarray]:
    """The ten best of each user without what is in the history."""
    model.eval()
    known = [data.token2id("item_id", [str(item) for item in items]) for items in histories]
    users, items = data.field2id_token["user_id"], data.field2id_token["item_id"]
    listed = {}
    for batch, *_ in batches:
        scores = model.full_sort_predict(batch).view(len(batch), -1)
        scores[:, 0] = -torch.inf
        who = [int(users[user]) for user in batch["user_id"].tolist()]
        row = np.repeat(np.arange(len(who)), [len(known[user]) for user in who])
        scores[torch.from_numpy(row), torch.from_numpy(np.concatenate([known[user] for user in who]))] = -torch.inf
        listed |= {user: items[best] for user, best in zip(who, torch.topk(scores, 10).indices.numpy())}
    return listed


def until(model, trainer, prepared, histories: list[list[int]], curve: protocol.Curve) -> None:
    """Trains as far as the curve asks."""
    data, batches, validation = prepared

    def validate() -> float:
        listed = lists(model, data, validation, [items[:-2] for items in histories])
        gains = 0.0
        for user, items in enumerate(histories):
            place = np.flatnonzero(listed[user] == str(items[-2]))
            gains += float((1 / np.log2(place + 2)).sum())
        return gains / len(histories)

    epoch = 0
    while True:
        trainer._train_epoch(batches, epoch)
        epoch += 1
        if curve.point(validate):
            break
    curve.report()


if __name__ == "__main__":
    main()
