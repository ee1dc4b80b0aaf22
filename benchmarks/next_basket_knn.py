"""TIFU-KNN and UP-CF, the strongest published next-basket methods without training, as scorers of `evaluation.measure`.

    TIFU-KNN  Hu, He, Gao, Zhang: Modeling Personalized Item Frequency Information for Next-basket Recommendation, SIGIR 2020
    UP-CF     Faggioli, Polato, Aiolli: Recency Aware Collaborative Filtering for Next Basket Recommendation, UMAP 2020

Neighbours are other customers by what they did before the cut; the customer asked for counts with the history of the view.
Equal scores are ordered as the baselines order them (`break_ties`). B views, U customers, V catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from attnrec_dist.data.eval_cases import ViewBatch, Views, known_events
from attnrec_dist.data.windows import basket_starts
from attnrec_dist.evaluation.baselines import break_ties
from attnrec_dist.evaluation.evaluate import Scorer

GRID = 1e-12  # distances that differ by less differ by rounding only


@dataclass(frozen=True)
class Baskets:
    """Which items the baskets of some customers hold, each (row, basket, item) once; n such entries."""

    row: np.ndarray  # int64 [n]
    place: np.ndarray  # int64 [n] number of the basket within its row, the oldest is 0
    item: np.ndarray  # int64 [n]
    count: np.ndarray  # int64 [rows] baskets of each row
    num_items: int

    @classmethod
    def of(cls, events: tuple[np.ndarray, np.ndarray, np.ndarray], num_rows: int, num_items: int, basket: str) -> Baskets:
        """Of events (row, item, time), [m] each, rows and their times ascending. `basket`: time or none, as data.basket."""
        row, item, time = events
        starts = basket_starts(time, row, basket)
        count = np.bincount(row[starts], minlength=num_rows)
        place = np.cumsum(starts) - 1 - (np.cumsum(count) - count)[row]
        row, place, item = np.unique(np.stack([row, place, item]).astype(np.int64), axis=1)
        return cls(row, place, item, count, num_items)

    def weighted(self, weights: np.ndarray) -> sparse.csr_array:
        """Float64 [rows, V]: the sum of the weights [n] of each item's entries."""
        return sparse.csr_array((weights, (self.row, self.item)), shape=(len(self.count), self.num_items))


def frequency_vectors(baskets: Baskets, groups: int, within_decay: float, group_decay: float) -> sparse.csr_array:
    """TIFU-KNN's user vectors (section 4: decay within a group of baskets, then over the groups), float64 [rows, V].

        v_g = 1/tau sum_{i=1..tau} within_decay^(tau - i) basket_i        v = 1/m sum_{g=1..m} group_decay^(m - g) v_g

    The n baskets of a customer, in order, make m = min(n, groups) groups of equal size; where that does not divide, the
    newest groups have one basket more.
    """
    n = baskets.count[baskets.row]
    m = np.minimum(n, groups)
    size, larger = n // m, n % m
    border = (m - larger) * size  # where the larger groups begin
    is_larger = baskets.place >= border
    tau = size + is_larger
    group = np.where(is_larger, m - larger + (baskets.place - border) // (size + 1), baskets.place // size)
    rank = np.where(is_larger, (baskets.place - border) % (size + 1), baskets.place % size)
    return baskets.weighted(within_decay ** (tau - 1 - rank) / tau * group_decay ** (m - 1.0 - group) / m)


def recent_popularity(baskets: Baskets, window: int | None) -> sparse.csr_array:
    """UP-CF's user-wise popularity (section 3): the share of the newest `window` baskets that hold an item, float64 [rows, V]."""
    n = baskets.count[baskets.row]
    width = n if window is None else np.minimum(n, window)
    return baskets.weighted((baskets.place >= n - width) / width)


def ever_bought(baskets: Baskets) -> sparse.csr_array:
    """Ones where any basket holds the item, float64 [rows, V]."""
    matrix = baskets.weighted(np.ones(len(baskets.row)))
    matrix.data[:] = 1
    return matrix


class NextBasketKNN:
    """Both methods over the customers of a data set as they were at the cut."""

    def __init__(self, views: Views):
        self.basket = views.config.basket
        pieces = [piece[:3] for piece in known_events(views)]
        row, item, time = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
        self.known = Baskets.of((row, item, time), views.data.num_rows, views.data.manifest.num_items, self.basket)
        self.popularity = np.bincount(item, minlength=self.known.num_items)

    def history(self, batch: ViewBatch) -> Baskets:
        """What the customers of a batch did, as the views know it."""
        events = batch.history_row, batch.history["item"], batch.history["time"]
        return Baskets.of(events, len(batch.views), self.known.num_items, self.basket)

    def tifu_knn(self, neighbours: int, groups: int, within_decay: float, group_decay: float, own_share: float) -> Scorer:
        """own_share v_u + (1 - own_share) (mean of the nearest others' vectors), nearest by Euclidean distance (section 4)."""
        others = frequency_vectors(self.known, groups, within_decay, group_decay)
        squares = others.power(2).sum(1)
        absent = self.known.count == 0

        def scorer(batch: ViewBatch) -> Tensor:
            own = frequency_vectors(self.history(batch), groups, within_decay, group_decay)
            distance = own.power(2).sum(1)[:, None] + squares - 2 * (own @ others.T).toarray()
            distance[:, absent] = np.inf
            distance[np.arange(len(batch.users)), batch.users] = np.inf
            mean = nearest(distance, neighbours) @ others
            return self.ordered((own_share * own + (1 - own_share) * mean).toarray())

        return scorer

    def up_cf(self, window: int | None, asymmetry: float, locality: float) -> Scorer:
        """Sum over all customers, oneself too, of similarity^locality x recent popularity (section 3, UP-CF@r).

        similarity(u, v) = |I_u and I_v| / (|I_u|^asymmetry |I_v|^(1 - asymmetry)), I the items ever bought. What is ranked is
        the 1/locality-th power of the weighted mean: the same order, without values too small to tell apart.
        """
        others, popular = ever_bought(self.known), recent_popularity(self.known, window)
        sizes = np.maximum(others.sum(1), 1)

        def scorer(batch: ViewBatch) -> Tensor:
            history = self.history(batch)
            own, mine = ever_bought(history), recent_popularity(history, window)
            both = (own @ others.T).toarray()
            similarity = both / np.maximum(own.sum(1), 1)[:, None] ** asymmetry / sizes ** (1 - asymmetry)
            similarity[np.arange(len(batch.users)), batch.users] = 0  # as of the view, not of the cut: added as `mine`
            weights = similarity**locality
            total = 1 + weights.sum(1, keepdims=True)
            values = (weights @ popular + mine.toarray()) / total
            return self.ordered(values ** (1 / locality))

        return scorer

    def ordered(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(break_ties(values, self.popularity))


def nearest(distance: np.ndarray, neighbours: int) -> sparse.csr_array:
    """[B, U] -> weights of the mean over each row's nearest, [B, U]; infinite ones never, the lower column among equals."""
    order = np.argsort(np.rint(distance / GRID), axis=1, kind="stable")[:, :neighbours]
    near = np.isfinite(np.take_along_axis(distance, order, axis=1))
    row = np.repeat(np.arange(len(distance)), near.sum(1))
    weights = 1.0 / np.maximum(near.sum(1), 1)
    return sparse.csr_array((weights[row], (row, order[near])), shape=distance.shape)
