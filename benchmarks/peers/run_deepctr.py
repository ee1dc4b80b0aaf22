"""DeepCTR-Torch 0.3.0 on labelled examples: DIN or AutoInt, one epoch by its own fit() on numpy arrays, AUC by its predict().

Its columns: a SparseFeat for each categorical field and the candidate, a DenseFeat for each number, and for DIN the history as a
VarLenSparseFeat that shares the candidate's vectors. Linear part and L2 of AutoInt are off: ours has neither, and they cost time.
Verbosity 0 and no metrics, so that fit() trains and nothing else. `loader s` are
those of one more pass over its DataLoader alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import protocol
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from deepctr_torch.models import DIN, AutoInt
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader, TensorDataset

ITEM, HISTORY, LENGTH = "candidate", "hist_candidate", "history_length"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", type=Path, help="npz: PART.COLUMN float32 [n] or [n, L], PART.label, of train and validation")
    parser.add_argument("shape", type=json.loads, help="JSON: width, layers, unit_width, heads, blocks, dropout, sizes")
    parser.add_argument("--model", choices=["din", "autoint"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(asked.examples) as stored:
        arrays = {name: stored[name] for name in stored.files}
    model = made(asked.model, asked.shape, arrays, asked.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=asked.lr)
    model.compile(optimizer, "binary_crossentropy", metrics=[])
    x, y = part(model, arrays, "train")
    clock, steps = protocol.Clock(), -(-len(y) // asked.batch)

    def stepped(*_: object) -> None:
        last = len(y) - (steps - 1) * asked.batch
        clock.step(last if clock.steps + 1 == steps else asked.batch)

    optimizer.register_step_post_hook(stepped)
    model.fit(x, y, batch_size=asked.batch, epochs=1, verbose=0)
    seen, labels = part(model, arrays, "validation")
    auc = roc_auc_score(labels, model.predict(seen, 4096))
    parameters = sum(each.numel() for each in model.parameters())
    print(json.dumps({**clock.rates("examples"), "auc": auc, "parameters": parameters, "loader s": loading(x, y, asked.batch)}))


def made(name: str, shape: dict, arrays: dict[str, np.ndarray], seed: int) -> torch.nn.Module:
    width, sizes = shape["width"], shape["sizes"]
    columns = [SparseFeat(column, size, embedding_dim=width) for column, size in sizes.items()]
    dense = [each.removeprefix("train.") for each in arrays if each.startswith("train.")]
    columns += [DenseFeat(column, 1) for column in dense if column not in (*sizes, HISTORY, LENGTH, "label")]
    same = {"seed": seed, "dnn_dropout": shape["dropout"], "dnn_activation": "prelu", "l2_reg_embedding": 0}
    if name == "autoint":
        layers = {"att_layer_num": shape["blocks"], "att_head_num": shape["heads"], "dnn_hidden_units": shape["layers"]}
        return AutoInt([], columns, **layers, **same)
    items = SparseFeat(HISTORY, sizes[ITEM], embedding_dim=width, embedding_name=ITEM)
    history = VarLenSparseFeat(items, maxlen=arrays["train." + HISTORY].shape[1], length_name=LENGTH)
    unit = {"att_hidden_size": [shape["unit_width"]], "att_activation": "prelu"}
    return DIN([*columns, history], [ITEM], dnn_hidden_units=shape["layers"], **unit, **same)


def part(model: torch.nn.Module, arrays: dict[str, np.ndarray], which: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return {column: arrays[f"{which}.{column}"] for column in model.feature_index}, arrays[f"{which}.label"]


def loading(x: dict[str, np.ndarray], y: np.ndarray, batch: int) -> float:
    """Seconds of a pass over the examples as fit() loads them, with nothing trained."""
    columns = [each if each.ndim > 1 else each[:, None] for each in x.values()]
    data = TensorDataset(torch.from_numpy(np.concatenate(columns, axis=-1)), torch.from_numpy(y))
    started = time.perf_counter()
    for _ in DataLoader(data, shuffle=True, batch_size=batch):
        pass
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
