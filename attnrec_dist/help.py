"""What the command line says of itself: versions, short help, what was meant by a misspelt word. Imports nothing heavy.

KEYS repeats what the sections say of their keys, because most of these stand in modules that bring torch: seconds for a glance.
"""

from __future__ import annotations

import argparse
import difflib
import platform
from collections.abc import Iterable, Sequence

from attnrec_dist.errors import ConfigError
from attnrec_dist.fault_report import version_of
from attnrec_dist.yaml_text import shortened

EXAMPLES = {
    "prepare": "attnrec prepare my-log.yaml --input events.csv --output data/mine",
    "inspect": "attnrec inspect data/mine",
    "train": "attnrec train my-run.yaml --data data/mine --run_dir runs/mine --train.seed 1",
    "refit": "attnrec refit runs/mine --data data/mine-refit",
    "evaluate": "attnrec evaluate runs/mine --output figures.json",
    "compare": "attnrec compare runs/one runs/other --metric ndcg@10",
    "explain": "attnrec explain runs/mine --output explained",
    "recommend": "attnrec recommend runs/mine --users 12347 12348 --top_k 5",
    "when": "attnrec when runs/mine --user 12347",
    "replay": "attnrec replay runs/mine --step 100",
    "plot": "attnrec plot runs/mine",
}
KEYS = {
    "prepare": """
  --input.files  list[text], required
      raw log: paths, patterns with * and ?, directories (day=5 in a path is a column); beside the YAML, else where you are
  --columns.user  text, required
      column of the user's id; ids are text and kept exactly
  --columns.item  text, required
      column of the item's id; ids are text and kept exactly
  --columns.timestamp.name  text, required
      column that holds the time of the event
  --columns.event.name  text, required
      column that holds the kind of event
  --items.file  text, required
      csv, tsv, parquet or jsonl; found as input.files are
  --split.validation_from  text or null, default null
      first moment of the validation part, ISO 8601, for example 2011-09-01
  --split.test_from  text or null, default null
      first moment of the test part, ISO 8601
  --split.test  number, default 0.1
      share of the events after those
  --output.dir  text, required
      the data set's directory, from the current directory; --output DIR overrides it
""",
    "train": """
  --data.path  text, required
      the prepared data set, as written by `attnrec prepare`; --data overrides it
  --data.max_length  integer, default 200
      tokens of a window; longer histories are cut, between baskets
  --data.target_events  list[text] or null, default null
      event types that are predicted, such as [buy]; the others are only input; null: all
  --model.width  integer, default 64
      width D of items and hidden states; a multiple of heads
  --optimizer.lr  number, default 0.001
      peak learning rate
  --train.max_epochs  number or null, default 10
      epochs to train at most; null: only max_steps counts
  --train.global_batch_size  integer, default 128
      samples of one step, over all processes and accumulation
  --train.micro_batch_tokens  integer, default 16384
      tokens that one forward may hold, long rows counted dearer; more are accumulated
  --train.precision  fp32|tf32|bf16|fp16|fp64, default fp32
      bf16, fp16: autocast, weights stay fp32; tf32: fp32 with faster products on a GPU; fp64: for tests
  --train.seed  integer, default 0
      of initial weights, order and dropout
""",
    "evaluate": """
  --evaluation.metrics  list[text], default [recall@10, ndcg@10, hr@10, mrr@10, capped_recall@10]
      what is measured, each as name@k
  --evaluation.threads  integer, default 1
      CPU threads while scoring, fixed so that results do not depend on the machine's cores
  --evaluation.baselines.trend_days  number, default 14
      days before the cut that the trend counts
  --evaluation.baselines.half_life_days  number or null, default 60
      age at which a customer's own event weighs half; null: no decay
  --evaluation.baselines.trend_weight  number, default 3
      weight of the trend beside the customer's own frequency
  --evaluation.baselines.neighbours  integer, default 100
      item graph: neighbours kept of each item
""",
}


def short_help(name: str) -> str:
    """An example and, where a command has keys, those that matter most."""
    text = f"for example: {EXAMPLES[name]}\n\n"
    if name in KEYS:
        text += f"Keys that matter most, for the YAML or as options (--help-all shows all):\n{KEYS[name].strip(chr(10))}\n\n"
    return text


def versions() -> str:
    """The package, Python and torch, which is not imported for it."""
    return f"attnrec {version_of('attnrec_dist')}, Python {platform.python_version()}, torch {version_of('torch')}"


def check_command(word: str | None, commands: Iterable[str]) -> None:
    """Raises ConfigError for a first word that is no command, with the nearest one."""
    if word is None or word.startswith("-") or word in commands:
        return
    close = difflib.get_close_matches(word.lower(), commands, 1, 0.6)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(commands)}"
    raise ConfigError(f"{shortened(word)} is no command; {hint}")


def check_options(words: Sequence[str], command: argparse.ArgumentParser) -> None:
    """Raises ConfigError for an option that is not the command's, where one of these was meant; others may be keys."""
    options = {_bare(option): option for option in command._option_string_actions if option.startswith("--")}
    for word in words:
        option = word.partition("=")[0]
        if not option.startswith("--") or "." in option:
            continue
        close = difflib.get_close_matches(_bare(option), options, 1, 0.75)
        if close:
            raise ConfigError(f"unknown argument {shortened(option)}; did you mean {options[close[0]]}?")


def _bare(option: str) -> str:
    """--top-k, --TopK and --top_k are one."""
    return option.lower().replace("-", "").replace("_", "")
