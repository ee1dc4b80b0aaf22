"""Do a model's weights tell what its prediction rests on? Attention is not by itself an explanation (Jain and Wallace 2019), so
ask: does the prediction move further when the input of the highest weight is changed than when another one is?

Movements are |difference of the main logit|, one for each example; they are compared within users, as everything is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from attnrec_dist.evaluation.significance import Difference, difference
from attnrec_dist.evaluation.user_metrics import Sums, ratio

WORTH = 1.5  # times as far as another input: with many users far less is clear, and says nothing worth telling


@dataclass(frozen=True)
class Faithfulness:
    """What changing the input of the highest weight does, against another of the same example."""

    of: str  # what an input is: "field" or "past event"
    moved: Difference  # A: the highest weight; B: another
    examples: int
    agreement: float = math.nan  # mean rank correlation of weights and movements within an example

    @property
    def sentence(self) -> str:
        d = self.moved
        if not self.examples:
            return f"There is no example with two weights to choose from, so nothing is known of the {self.of}s' weights."
        times = f"{d.mean_a / d.mean_b:.1f} times as far" if d.mean_b > 0 else "and another one not at all"
        change = {
            "field": f"The {self.of} with the highest weight, given the value of another example, moves",
            "past event": f"The {self.of} with the highest weight, left out, moves",
        }[self.of]
        measured = (
            f"{change} the log odds by {d.mean_a:.3g} on average, a random other one by {d.mean_b:.3g}: {times} (difference "
            f"{d.difference:.3g}, {d.confidence:.0%} CI {d.low:.3g} to {d.high:.3g}, p {d.p:.2g}, {self.examples:,} examples of "
            f"{d.views:,} users)."
        )
        if d.is_clear and 0 < d.difference < (WORTH - 1) * d.mean_b:
            return f"{measured} Here the weights point the right way, but so weakly that they explain little."
        if d.is_clear and d.difference > 0:
            return f"{measured} Here the weights point at what the prediction rests on."
        if d.is_clear:
            return f"{measured} Here the weights mislead: what they point at matters less than the rest."
        return f"{measured} Here the weights do not tell what the prediction rests on: do not read them as reasons."


def of_fields(weights: np.ndarray, moved: np.ndarray, users: np.ndarray, seed: int = 0) -> Faithfulness | None:
    """From the weights and the movements of all fields, float64 [n, K] each; None where no weight stands out (all equal).

    Another field is every other field, each with the same chance: its expectation, without drawing.
    """
    counted = ~np.isnan(moved).any(1) & (np.ptp(weights, axis=1) > 1e-9)
    weights, moved, users = weights[counted], moved[counted], users[counted]
    if not len(weights) or weights.shape[1] < 2:
        return None
    top = moved[np.arange(len(weights)), weights.argmax(1)]
    others = (moved.sum(1) - top) / (weights.shape[1] - 1)
    agreement = np.array([_rank_correlation(w, m) for w, m in zip(weights, moved)])
    return Faithfulness("field", by_users(top, others, users, seed), len(top), float(np.nanmean(agreement)))


def of_events(top: np.ndarray, others: np.ndarray, users: np.ndarray, seed: int = 0) -> Faithfulness:
    """From the movements without the event of the highest weight and without another, float64 [n], NaN where there is none."""
    counted = ~np.isnan(top)
    return Faithfulness("past event", by_users(top[counted], others[counted], users[counted], seed), int(counted.sum()))


def by_users(a: np.ndarray, b: np.ndarray, users: np.ndarray, seed: int = 0) -> Difference:
    """Means over examples, users resampled as wholes."""
    _, place = np.unique(users, return_inverse=True)
    counts = np.bincount(place)
    of_a, of_b = (Sums(np.stack([np.bincount(place, weights=values), counts], 1), ratio) for values in (a, b))
    return difference(of_a, of_b, seed)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; NaN where one of them does not vary."""
    a, b = (values.argsort().argsort() for values in (a, b))
    return float(np.corrcoef(a, b)[0, 1])
