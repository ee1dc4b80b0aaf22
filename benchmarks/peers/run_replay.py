"""RePlay 0.22, SasRec: losses CE, and CESampled with negatives that the step shares. --variant buckets: its encoder by length."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import lightning
import pandas as pd
import protocol
import torch
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.data.nn.parquet.parquet_module import ParquetModule
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback.predictions_callback import TorchTopItemsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.loss import CESampled
from replay.nn.sequential import SasRec
from replay.nn.sequential.length_bucket import LengthBucketedQueryEncoder
from replay.nn.transform import UniformNegativeSamplingTransform
from replay.nn.transform.template.sasrec import make_default_sasrec_transforms

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
BUCKET = 32  # tokens


class Watch(lightning.Callback):
    def __init__(self, clock: protocol.Clock):
        self.clock = clock

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.clock.step(int(batch["target_padding_mask"].sum()))


def main() -> None:
    asked = protocol.arguments()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    lightning.seed_everything(0)
    clock = protocol.Clock()
    histories = protocol.read(asked.histories)
    items = 1 + max(max(each) for each in histories)
    source = [TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")]
    feature = TensorFeatureInfo(
        "item_id",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        embedding_dim=64,
        padding_value=items,
        cardinality=items,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=source,
    )
    schema = TensorSchema([feature])
    model = SasRec.from_params(
        schema, embedding_dim=64, num_heads=2, num_blocks=2, max_sequence_length=asked.max_length, dropout=0.2
    )
    if asked.loss == "sampled":
        model.loss = CESampled(ignore_index=items)
        model.loss.logits_callback = model.get_logits
    if "buckets" in asked.variant:
        model.body.encoder = LengthBucketedQueryEncoder(model.body.encoder, BUCKET)
    module = LightningModule(model, optimizer_factory=OptimizerFactory("adam", learning_rate=1e-3))
    with tempfile.TemporaryDirectory() as folder:
        data = batches(histories, asked, schema, Path(folder), items)
        trainer = lightning.Trainer(
            max_epochs=1, callbacks=[Watch(clock)], limit_train_batches=asked.steps, limit_val_batches=0, **QUIET
        )
        trainer.fit(module, datamodule=data)
        clock.trained()
        more = {}
        if asked.evaluate:
            started = time.perf_counter()
            best = TorchTopItemsCallback(10, "user_id", postprocessors=[SeenItemsFilter(items, "seen_ids")])
            lightning.Trainer(callbacks=[best], inference_mode=True, **QUIET).predict(
                module, datamodule=data, return_predictions=False
            )
            assert len(best.get_result()[0]) == len(histories)
            more["users/s"] = len(histories) / (time.perf_counter() - started)
    clock.report(**more)


def batches(histories: list[list[int]], asked, schema: TensorSchema, folder: Path, items: int) -> ParquetModule:
    train = [(user, each[:-2]) for user, each in enumerate(histories) if len(each) > 3]
    known = [(user, each[:-1], each[:-1]) for user, each in enumerate(histories)]
    pd.DataFrame(train, columns=["user_id", "item_id"]).to_parquet(folder / "train.parquet")
    pd.DataFrame(known, columns=["user_id", "item_id", "seen_ids"]).to_parquet(folder / "predict.parquet")
    transforms = make_default_sasrec_transforms(schema)
    if asked.loss == "sampled":
        transforms["train"].append(UniformNegativeSamplingTransform(items, asked.negatives))
    longest = max(map(len, histories))
    shapes = {
        "train": {"user_id": {}, "item_id": {"shape": asked.max_length + 1, "padding": items}},
        "predict": {
            "user_id": {},
            "item_id": {"shape": asked.max_length, "padding": items},
            "seen_ids": {"shape": longest, "padding": -1},
        },
    }
    return ParquetModule(
        batch_size={"train": asked.batch, "predict": 256},
        transforms={part: transforms[part] for part in ("train", "predict")},
        metadata=shapes,
        train_path=str(folder / "train.parquet"),
        predict_path=str(folder / "predict.parquet"),
    )


if __name__ == "__main__":
    main()
