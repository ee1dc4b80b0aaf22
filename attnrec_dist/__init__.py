"""attnrec_dist: distributed training of attention recommenders.

>>> from attnrec_dist import load                                          # doctest: +SKIP
>>> load("runs/quickstart-mixture-refit").recommend(history=["22423"])     # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnrec_dist.recommendation.recommend import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` is imported when it is first asked for: importing the package costs nothing."""
    if name == "load":
        from attnrec_dist.recommendation.recommend import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
