"""The labelled examples of the ranking task on disk: columns of a shard, and what the manifest tells of them.

An example is (user, candidate item, moment): what is known of the pair strictly before that second, and what came of it.
docs/data-format.md describes the files; data/examples.py reads them, prepare/examples/files.py writes them.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from pydantic import Field, model_validator

from attnrec_dist.settings import Section

EXAMPLES = "examples"
VOCABULARY = "examples-vocabulary.parquet"
LABEL_PREFIX, FIELD_PREFIX = "label.", "field."
ExamplePart = Literal["train", "validation", "test"]
EXAMPLE_PARTS: tuple[ExamplePart, ...] = ("train", "validation", "test")
UNSEEN, MISSING, FIRST_VALUE = 0, 1, 2  # codes of a categorical field
SILENT = -1  # a label: this task says nothing of this example
BLOCK_BYTES, HASH_BYTES = 262_144, 8  # a file is checked in blocks of this size, each by the first bytes of its sha256
QUANTILES = 64  # bins that the boundaries of a numeric field part the training examples into, where its values are many


class Shard(Section):
    """A file of the data set, as the manifest lists it."""

    name: str
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    blocks: str = Field(default="", description="hash of each 262,144 bytes, one after another; empty: an older version's")

    @model_validator(mode="after")
    def _a_hash_a_block(self) -> Shard:
        digits = 2 * HASH_BYTES * -(-self.bytes // BLOCK_BYTES)
        if self.blocks and (len(self.blocks) != digits or not set(self.blocks) <= set("0123456789abcdef")):
            raise ValueError(f"{self.name}: blocks: not a hash for each block of {BLOCK_BYTES} bytes")
        return self


class FieldSpec(Section):
    """One feature. Categorical: int32 codes, 0 unseen in training, 1 missing, 2.. values. Numeric: float32, NaN missing."""

    name: str
    kind: Literal["categorical", "numeric"]
    size: int | None = Field(default=None, description="categorical: number of codes, the two reserved ones included; else null")
    log1p: bool = Field(
        default=False, description="numeric: mean and std are those of sign(v) log(1 + |v|); the column holds the value v itself"
    )
    quantiles: list[float] = Field(
        default=[],
        description="numeric: at most 63 boundaries, ascending, distinct, of the raw training values: a value's bin is how many "
        "boundaries are not above it",
    )
    mean: float | None = Field(default=None, description="numeric: of the training values that are not missing")
    std: float | None = Field(default=None, description="numeric: likewise, of the population; 0 for a constant")
    missing: dict[str, int] = Field(default={}, description="part -> examples in which it is missing")
    unseen: dict[str, int] = Field(default={}, description="categorical: part -> examples with a value that training has not")


class ExamplesSpec(Section):
    """The manifest's section `examples`."""

    tasks: list[str] = Field(description="names of the labels; the first is the main one, which every example has")
    fields: list[FieldSpec]
    counts: dict[str, int] = Field(description="part -> examples")
    known: dict[str, dict[str, int]] = Field(description="task -> part -> examples of which the task says something")
    positives: dict[str, dict[str, int]] = Field(description="task -> part -> examples labelled 1")
    shards: dict[str, list[Shard]] = Field(description="part -> files under examples/, in the order of the examples")
    vocabulary: Shard = Field(description="words of the categorical fields: field, code, value")
    left_out: dict[str, int] = Field(default={}, description="reason -> candidates for an example that are none")

    @property
    def files(self) -> list[Shard]:
        """All that is listed here, under whatever folder."""
        return [*(shard for shards in self.shards.values() for shard in shards), self.vocabulary]

    def field(self, name: str) -> FieldSpec:
        """Raises KeyError."""
        return {field.name: field for field in self.fields}[name]


def example_schema(tasks: list[str], fields: list[FieldSpec]) -> pa.Schema:
    """Columns of an example shard. Rows are in the order of user, then time, then candidate."""
    columns = [("user", pa.int64()), ("candidate", pa.int32()), ("time", pa.int64()), ("history", pa.int32())]
    columns += [(LABEL_PREFIX + task, pa.int8()) for task in tasks]
    kinds = {"categorical": pa.int32(), "numeric": pa.float32()}
    columns += [(FIELD_PREFIX + field.name, kinds[field.kind]) for field in fields]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])
