"""Packs pieces of histories into a SequenceBatch: all rows at once with numpy, no loop over users."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from attnrec_dist.batch import BEGIN, PADDING, SequenceBatch
from attnrec_dist.data.gather import ranges
from attnrec_dist.data.windows import basket_starts


@dataclass
class Histories:
    """Packed pieces of histories, in time order. A piece holds its input tokens and, behind them, those of its last target."""

    sample_ids: np.ndarray  # int64 [B]
    users: np.ndarray  # int64 [B]
    sizes: np.ndarray  # int64 [B] tokens of each piece
    inputs: np.ndarray  # int64 [B] how many of them are input
    first_query: np.ndarray  # int64 [B] the place from which baskets are queries
    items: np.ndarray  # int32 [T']
    times: np.ndarray  # int64 [T']
    columns: dict[str, np.ndarray]  # {"event": int8 [T'], ...}
    is_target: np.ndarray  # bool [T'] may be predicted


@dataclass
class Asked:
    """What a batch's queries are: Q of them, with M targets."""

    after: np.ndarray  # int64 [Q] the basket at whose end each asks, counted over the whole batch
    times: np.ndarray  # int64 [Q]
    targets: np.ndarray  # int32 [M]
    target_query: np.ndarray  # int64 [M]
    weight: np.ndarray  # float64 [M]


def begun(pieces: Histories) -> Histories:
    """The pieces with a token of no item, a second before the rest, in front of those without input."""
    is_empty = pieces.inputs == 0
    first = (np.cumsum(pieces.sizes) - pieces.sizes)[is_empty]
    return replace(
        pieces,
        sizes=pieces.sizes + is_empty,
        inputs=pieces.inputs + is_empty,
        items=np.insert(pieces.items, first, BEGIN),
        times=np.insert(pieces.times, first, pieces.times[first] - 1),
        columns={name: np.insert(column, first, 0) for name, column in pieces.columns.items()},
        is_target=np.insert(pieces.is_target, first, False),
    )


def pack(
    pieces: Histories, basket: str, max_length: int, standins: int = 0, query_times: np.ndarray | None = None
) -> SequenceBatch:
    """The batch of these pieces, followed by `standins` rows of one token and weight 0.

    Where `query_times` [B] is given the batch asks for a forecast: one query a row, at its last basket, without targets.
    """
    place, row = ranges(np.zeros(len(pieces.sizes), np.int64), pieces.sizes)  # take: twice as fast as brackets
    new_basket = basket_starts(pieces.times, row, basket)
    basket_of = np.cumsum(new_basket) - 1  # [T'] basket of a token, counted over the whole batch
    first_token = np.flatnonzero(new_basket)  # [baskets]
    inputs = pieces.inputs.take(row)
    keep = place < inputs  # the input tokens
    if pieces.inputs.max(initial=0) > max_length:
        keep &= _thinned(place, inputs, max_length)

    kept = np.flatnonzero(keep)  # [T]
    row_of, own_basket = row.take(kept), basket_of.take(kept)

    input_sizes = np.bincount(row_of, minlength=len(pieces.sizes))
    first_basket = (
        basket_of[np.minimum(np.cumsum(pieces.sizes) - pieces.sizes, len(row) - 1)] if len(row) else np.empty(0, np.int64)
    )
    last_token = np.full(len(first_token), -1)  # of each basket, counted among the kept tokens
    last_token[own_basket] = np.arange(len(kept))

    if query_times is None:
        asked = _next_baskets(pieces, place, row, basket_of, first_token)
    else:
        none = np.empty(0, np.int64)
        asked = Asked(basket_of[np.cumsum(pieces.sizes) - 1], query_times, none, none, np.empty(0))

    tokens = len(kept)
    extra = np.arange(standins)
    columns = {
        name: np.concatenate([column.take(kept), np.zeros(standins, column.dtype)]) for name, column in pieces.columns.items()
    }
    return SequenceBatch(
        sample_ids=_long(pieces.sample_ids, np.full(standins, PADDING)),
        users=_long(pieces.users, np.full(standins, PADDING)),
        items=_long(pieces.items.take(kept), 0 * extra),
        times=_long(pieces.times.take(kept), 0 * extra),
        baskets=_long(own_basket - first_basket.take(row_of), 0 * extra),
        offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(np.append(input_sizes, 1 + 0 * extra))]).astype(np.int32)),
        queries=_long(last_token.take(asked.after), tokens + extra),
        query_times=_long(asked.times, 0 * extra),
        targets=_long(asked.targets, 0 * extra),
        target_query=_long(asked.target_query, len(asked.after) + extra),
        target_weight=torch.from_numpy(np.append(asked.weight, 0.0 * extra).astype(np.float32)),
        max_length=int(max(input_sizes.max(initial=0), min(standins, 1))),
        singletons=len(_distinct(own_basket)[0]) == tokens,
        events={name: _column(column) for name, column in columns.items()},
    )


def _next_baskets(pieces: Histories, place: np.ndarray, row: np.ndarray, basket_of: np.ndarray, first_token: np.ndarray) -> Asked:
    """Asks before each basket that may be a target for its items. `place`, `row`, `basket_of` are of tokens [T']."""
    basket_row, begins = row.take(first_token), place.take(first_token)  # [baskets]
    is_asked = np.zeros(len(first_token), bool)  # baskets with a query before them
    is_asked[1:] = (basket_row[1:] == basket_row[:-1]) & (begins[:-1] >= pieces.first_query.take(basket_row[1:]))
    asks = np.flatnonzero(is_asked.take(basket_of) & pieces.is_target)
    after, target_query = _distinct(basket_of.take(asks) - 1)
    weight = (1.0 / np.bincount(target_query, minlength=len(after))).take(target_query)
    times = pieces.times.take(first_token.take(after + 1)) if len(after) else np.empty(0, np.int64)
    return Asked(after, times, pieces.items.take(asks), target_query, weight)


def _distinct(ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values [n] of numbers in ascending order, and for each number the place of its value among them."""
    is_first = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=is_first[1:])
    return ascending[is_first], np.cumsum(is_first) - 1


def _thinned(place: np.ndarray, inputs: np.ndarray, max_length: int) -> np.ndarray:
    """Keeps everything, but of a piece with more than max_length input tokens an even choice of max_length. bool [T']."""
    kept_before = place * max_length // np.maximum(inputs, 1)
    kept_with = (place + 1) * max_length // np.maximum(inputs, 1)
    return (inputs <= max_length) | (kept_with > kept_before)


def _column(values: np.ndarray) -> torch.Tensor:
    """Codes as int64, which embeddings take; numbers as they are."""
    return torch.from_numpy(values.astype(np.int64) if values.dtype.kind == "i" else values)


def _long(*parts: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts, dtype=np.int64))
