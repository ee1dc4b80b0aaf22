"""Does `attnrec compare` hold what its intervals and p values say? Simulations with a known effect, beside scipy.

    python benchmarks/interval_coverage.py [--trials 1000]

Users differ far more than two runs do, they have unlike numbers of examples, and a run errs on whole users. Coverage: how often
the 95% interval holds the true difference. False findings: how often p <= 0.05 between two equally good runs. "by example"
resamples single examples, as if those of one user were independent: what not to do. Writes
benchmarks/results/DATE-interval-coverage.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy import stats
from shared import stamp, write_result

from attnrec_dist.comparison.classification import CLASSIFIED, Scored
from attnrec_dist.evaluation import significance
from attnrec_dist.evaluation.significance import difference, paired_difference

RESAMPLES = 2_000  # as compare does
RANKED_SHARE = 4  # classifiers cost far more: a quarter of the trials
METRICS = ("auc", "pr_auc", "gauc", "log_loss", "f1", "ece")


def means(random: np.random.Generator, users: int, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of users in two runs, skewed, whose true means differ by `effect`."""
    base = random.beta(0.6, 1.4, users)
    return base + 0.1 * random.standard_t(5, users) + effect, base + 0.1 * random.standard_t(5, users)


def readings(random: np.random.Generator, users: int, worse: float) -> tuple[Scored, Scored]:
    """Two runs' noisy readings of one truth; the second's noise is `worse` times as large."""
    user = np.repeat(np.arange(users), random.integers(1, 12, users))
    logit = random.normal(0, 1, users)[user] + random.normal(0, 1, len(user)) - 1
    positive = random.random(len(user)) < 1 / (1 + np.exp(-logit))
    runs = []
    for scale in (1.0, worse):
        noise = scale * (random.normal(0, 0.9, users)[user] + random.normal(0, 0.4, len(user)))
        runs.append(Scored(positive, 1 / (1 + np.exp(-logit - noise)), user, users, 0.4))
    return runs[0], runs[1]


def by_example(of: Scored) -> Scored:
    return Scored(of.positive, of.probability, np.arange(len(of.users)), len(of.users), of.threshold)


def simulate(trials: int, judge: Callable[[int], tuple[float, float, float]], truth: float) -> dict[str, float | None]:
    """Share of the trials whose interval holds the truth, and whose p is 0.05 or less, each with its standard error."""
    found = np.array([judge(seed) for seed in range(trials)])
    held = float(((found[:, 0] <= truth) & (truth <= found[:, 1])).mean())
    small = None if np.isnan(found[:, 2]).all() else float((found[:, 2] <= 0.05).mean())
    return {"coverage": held, "error": (held * (1 - held) / trials) ** 0.5, "p at most 0.05": small}


def ours(a, b, seed: int, normal: bool = False) -> tuple[float, float, float]:
    before = significance.RESAMPLED_VIEWS
    significance.RESAMPLED_VIEWS = 0 if normal else before
    try:
        d = difference(a, b, seed, RESAMPLES) if not isinstance(a, np.ndarray) else paired_difference(a, b, seed, RESAMPLES)
    finally:
        significance.RESAMPLED_VIEWS = before
    return d.low, d.high, d.p


def students(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval()
    return interval.low, interval.high, test.pvalue


def scipys(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[float, float, float]:
    done = stats.bootstrap((a - b,), np.mean, n_resamples=RESAMPLES, method="percentile", random_state=seed)
    return done.confidence_interval.low, done.confidence_interval.high, np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    begin, table = time.perf_counter(), {}

    def note(name: str, found: dict[str, float | None]) -> None:
        table[name] = found
        p = "" if found["p at most 0.05"] is None else f"   p <= 0.05: {found['p at most 0.05']:.3f}"
        print(f"{name:58} coverage {found['coverage']:.3f} +- {found['error']:.3f}{p}", flush=True)

    for users in (50, 200):
        for effect in (0.0, 0.02):

            def drawn(seed: int, users=users, effect=effect):
                return means(np.random.default_rng([seed, users, effect > 0]), users, effect)

            name = f"mean, {users} users, effect {effect}"
            note(f"{name}: compare", simulate(trials, lambda seed: ours(*drawn(seed), seed), effect))
            note(f"{name}: significance, normal", simulate(trials, lambda seed: ours(*drawn(seed), seed, normal=True), effect))
            note(f"{name}: scipy bootstrap", simulate(trials, lambda seed: scipys(*drawn(seed), seed), effect))
            note(f"{name}: scipy ttest_rel", simulate(trials, lambda seed: students(*drawn(seed)), effect))
    for worse in (1.0, 1.5):
        of_many = [readings(np.random.default_rng([9, part]), 50_000, worse) for part in range(4)]
        for metric in METRICS:
            truth = (
                0.0 if worse == 1.0 else np.mean([CLASSIFIED[metric](a).value - CLASSIFIED[metric](b).value for a, b in of_many])
            )

            def runs(seed: int, metric=metric, worse=worse, by=lambda of: of):
                return [CLASSIFIED[metric](by(of)) for of in readings(np.random.default_rng([seed, worse > 1]), 150, worse)]

            name = f"{metric}, 150 users, true difference {truth:.4f}"
            note(f"{name}: compare", simulate(trials // RANKED_SHARE, lambda seed: ours(*runs(seed), seed), truth))
            if metric in ("log_loss", "f1"):
                note(
                    f"{name}: by example",
                    simulate(trials // RANKED_SHARE, lambda seed: ours(*runs(seed, by=by_example), seed), truth),
                )
    how = {"trials": trials, "resamples": RESAMPLES, "seconds": time.perf_counter() - begin}
    write_result({"simulations": table} | how | stamp(), "interval-coverage")


if __name__ == "__main__":
    main()
