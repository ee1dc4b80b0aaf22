"""The keys of the `evaluation` section that both tasks share: when a run validates, and when it stops."""

from __future__ import annotations

from pydantic import Field

from attnrec_dist.settings import Section


class ValidationConfig(Section):
    every_epochs: float = Field(1.0, gt=0, description="epochs between validations")
    every_steps: int | None = Field(None, ge=1, description="steps between validations, instead of every_epochs")
    patience: int | None = Field(None, ge=1, description="validations without gain that end the training; null: never")
