"""The command line: quick help, complete configurations, bad input with its message and code, faults that lose nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_shop import Shop, write_shop

from attnrec_dist import load
from attnrec_dist.cli import main, make_parser
from attnrec_dist.commands import all_commands, plot
from attnrec_dist.engine.config import load_run_config
from attnrec_dist.errors import ExitCode
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.run_dir import RunDir
from attnrec_dist.settings import describe, iterate_keys, take_overrides

HEAVY = ["torch", "datasets", "accelerate", "duckdb", "pyarrow", "numpy", "pandas", "matplotlib", "safetensors"]
COMMANDS = sorted(make_parser()._subparsers._group_actions[0].choices)
EXAMPLES = {command.name: command.example for command in all_commands()}
MAIN_KEYS = {command.name: command.main_keys for command in all_commands() if command.main_keys}


# Help


def test_help_answers_in_half_a_second():
    """Or, where other jobs share the processor's caches, within twice what its two libraries take."""

    def once(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "-m" not in words or all(command in done.stdout for command in COMMANDS)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # time spent waiting does not count

    helped, imported = zip(
        *((once("-m", "attnrec_dist", "--help"), once("-c", "import pydantic.fields, yaml")) for _ in range(5))
    )
    assert min(helped) < max(0.5, 2 * min(imported))


def test_the_command_line_imports_nothing_heavy():
    code = f"import sys, attnrec_dist.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(attnrec, command):
    for option in ("--help", "-h"):
        done = attnrec(command, option)
        assert done.code == 0
        assert done.out.startswith(f"for example: attnrec {command} ")
        assert f"usage: attnrec {command}" in done.out
    assert len([line for line in done.out.splitlines() if line.startswith("  -")]) >= 1


@pytest.fixture
def in_shop(shop, monkeypatch):
    """The repository, where tests run, has a directory data too once `make train` was there."""
    monkeypatch.chdir(shop.path)


@pytest.mark.usefixtures("in_shop")
def test_short_help_repeats_what_the_sections_say_of_their_keys(shop):
    sections = {"prepare": PrepareConfig, "train": type(load_run_config(shop.run_yaml, {}))}
    sections["evaluate"] = sections["train"]
    for command, section in sections.items():
        lines = [line for line in MAIN_KEYS[command].splitlines() if line]
        assert len(lines) <= 2 * 10
        for key, meaning in zip(lines[::2], lines[1::2], strict=True):
            assert f"{key}\n{meaning}\n" in describe(section) + "\n"


def test_the_examples_of_help_have_options_that_exist():
    for command, example in EXAMPLES.items():
        own, rest = make_parser().parse_known_args(take_overrides(example.split()[1:])[1])
        assert (own.command, rest) == (command, [])
    assert sorted(EXAMPLES) == COMMANDS


def test_short_help_brings_nothing_heavy():
    """train --help took 4.7 s of processor time with torch, 0.5 s without."""
    each = f"for command in {COMMANDS}: main([command, '--help'])"
    code = f"import sys; from attnrec_dist.cli import main\n{each}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_the_hint_at_a_commands_end_works_as_printed(attnrec, shop, tmp_path, command):
    place = tmp_path / "with a space"
    if command == "prepare":
        done = attnrec("prepare", shop.prepare_yaml, "--output", place)
    else:
        done = train(attnrec, shop, "--run_dir", place, "--train.max_steps", "2")
    assert done.code == 0, done.err
    words = shlex.split(re.search(r"next: attnrec (.*)", done.err)[1])
    assert str(place) in words
    assert attnrec(*words).code == 0


@pytest.mark.usefixtures("in_shop")
def test_help_documents_every_key(attnrec, shop):
    done = attnrec("train", "--help-all")
    config = load_run_config(shop.run_yaml, {})
    for key, _ in iterate_keys(type(config)):
        assert f"--{key}  " in done.out or f"{key}:" in done.out, key
    assert attnrec("train", shop.run_yaml, "--help-all").out.count("--model.width") == 1


def test_what_must_be_given_does_not_look_optional(attnrec):
    required_of = {"train": ["CONFIG.yaml"], "recommend": ["RUN_DIR"], "explain": ["--output OUTPUT", "RUN_DIR"]}
    for command, required in required_of.items():
        usage = re.search(r"usage: (.*?)\n\n", attnrec(command, "--help").out, re.DOTALL)[1]
        for each in required:
            assert each in usage
            assert f"[{each}]" not in usage
    assert "[--output OUTPUT]" in attnrec("evaluate", "--help").out


def test_a_yaml_of_the_other_kind_is_told_where_it_belongs(attnrec, shop):
    refused(attnrec("train", shop.prepare_yaml), "this is a prepare YAML", f"type attnrec prepare {shop.prepare_yaml}")
    refused(attnrec("prepare", shop.run_yaml), "this is a run's YAML", f"type attnrec train {shop.run_yaml}")


def test_no_command_is_a_question(attnrec):
    assert attnrec().code == 0
    assert "usage: attnrec" in attnrec().out


# Configurations


def test_a_printed_configuration_is_complete_and_reads_back(attnrec, shop, tmp_path):
    options = [
        "--train.seed",
        "-1",
        "--data.target_events",
        "[buy]",
        "--optimizer.lr=1e-3",
        "--data.path",
        "no",
        "--data.context=3",
    ]
    done = attnrec("train", shop.run_yaml, "--print_config", *options)
    assert done.code == 0, done.err
    (tmp_path / "again.yaml").write_text(done.out)
    again = load_run_config(tmp_path / "again.yaml", {})
    assert (again.train.seed, again.data.target_events, again.optimizer.lr, again.data.path) == (-1, ["buy"], 1e-3, "no")
    assert attnrec("train", tmp_path / "again.yaml", "--print_config").out == done.out
    assert (
        again.model_dump()
        == load_run_config(
            shop.run_yaml,
            {"train.seed": -1, "data.target_events": ["buy"], "optimizer.lr": 1e-3, "data.path": "no", "data.context": 3},
        ).model_dump()
    )


def test_a_printed_preparation_reads_back(attnrec, shop, tmp_path):
    done = attnrec("prepare", shop.prepare_yaml, "--print_config", "--filters.min_item_events", "3")
    assert done.code == 0, done.err
    (tmp_path / "again.yaml").write_text(done.out)
    assert "min_item_events: 3" in done.out
    assert attnrec("prepare", tmp_path / "again.yaml", "--print_config").out == done.out


@pytest.mark.usefixtures("in_shop")
def test_overrides_may_stand_before_the_file(attnrec, shop):
    after = attnrec("train", shop.run_yaml, "--train.seed", "3", "--print_config")
    assert attnrec("train", "--train.seed", "3", shop.run_yaml, "--print_config").out == after.out
    assert attnrec("train", "--print_config", "--train.seed=3", shop.run_yaml).out == after.out
    assert "seed: 3" in after.out


# Bad input: code 2, a message that says what, where and what to type; no traceback (the fixture sees to that)


@pytest.fixture
def copy(trained, tmp_path) -> Shop:
    """A shop of one's own, to break."""
    shutil.copytree(trained.path, tmp_path / "shop", symlinks=True)
    return Shop(tmp_path / "shop")


def train(attnrec, shop: Shop, *options: object):
    return attnrec("train", shop.run_yaml, "--run_dir", shop.run, "--data", shop.data, *options)


def refused(done, *parts: str) -> None:
    assert done.code == ExitCode.USER_ERROR, done
    assert done.err.startswith("attnrec: error: ")
    assert done.out == ""
    for part in parts:
        assert part in done.err


def test_threads_without_end_are_refused(attnrec, trained):
    for done in (
        attnrec("evaluate", trained.run, "--evaluation.threads", "1000000"),
        attnrec("train", trained.run / "config.yaml", "--evaluation.threads", "1000000"),
    ):
        refused(done, "--evaluation.threads: input should be less than or equal to 1024 (got 1000000)")
        assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--train.sead", "1"], ["error: --train.sead: unknown key; did you mean --train.seed?"]),
        (["--sead", "1"], ["error: --sead: unknown key; did you mean --train.seed?"]),
        (["--model.name", "sasrek"], ["model.name", "did you mean sasrec"]),
        (["--train.seed", "many"], ["train.seed: input should be a valid integer", "(got 'many')"]),
        (["--train.max_epochs", "null"], ["train.max_epochs and train.max_steps are both null", "set one"]),
        (["--data.context", "12"], ["leaves no room in a window of max_length 12"]),
        (["--data.target_events", "[sell]"], ["data.target_events: sell is not in the data set, which has view, buy"]),
        (["--train.seed"], ["--train.seed: a value is missing; type --train.seed VALUE"]),
        (["stray"], ["unexpected argument 'stray'"]),
        (["--data.path", "[1"], ["--data.path, line 1", "not valid YAML"]),
        (["--evaluation.metric", "ndcg@10"], ["did you mean next_basket/all/ndcg@10?"]),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_made(attnrec, shop, tmp_path, options, parts):
    data = [] if "--data.path" in options else ["--data", shop.data]
    done = attnrec("train", shop.run_yaml, "--run_dir", tmp_path / "run", *data, *options)
    refused(done, *parts)
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_files_and_directories_that_do_not_exist(attnrec, shop, tmp_path):
    refused(attnrec("train", shop.path / "rum.yaml"), "no such config file", "did you mean", "run.yaml?")
    refused(attnrec("prepare", tmp_path / "none.yaml"), "no such config file")
    refused(attnrec("train"), "CONFIG.yaml is missing; type attnrec train --help")
    refused(attnrec("recommend", tmp_path), "type --output FILE.parquet", "--users ID")
    for command in (["evaluate"], ["plot"], ["recommend", "--output", tmp_path / "o.parquet"]):
        refused(attnrec(*command, tmp_path / "nowhere"), "nowhere: no such run directory; `attnrec train CONFIG.yaml")
        refused(attnrec(*command, tmp_path), "holds no config.yaml")
    refused(
        attnrec("train", shop.run_yaml, "--run_dir", tmp_path / "run", "--data", tmp_path / "no-data"),
        "no-data: no such data set; make it with `attnrec prepare CONFIG.yaml --output DIR`",
    )
    refused(
        attnrec("train", shop.run_yaml, "--run_dir", tmp_path / "run", "--data", shop.path),
        "not a data set",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "'trian' is no command; did you mean train?"),
        ("EVALUATE x", "did you mean evaluate?"),
        ("xyz", "'xyz' is no command; there are prepare, inspect, train"),
        ("recommend x --topk 3", "unknown argument '--topk'; did you mean --top_k?"),
        ("recommend x --top-k=3", "unknown argument '--top-k'; did you mean --top_k?"),
        ("train x --run-dir=a", "unknown argument '--run-dir'; did you mean --run_dir?"),
        ("evaluate x --per-view a.parquet", "did you mean --per_view?"),
        ("prepare x --ouput=a", "unknown argument '--ouput'; did you mean --output?"),
        ("plot x --colour=red", "unknown argument '--colour'; --help lists"),
    ],
)
def test_a_misspelt_command_or_option_is_told_what_was_meant(attnrec, words, message):
    refused(attnrec(*words.split()), message)


def test_versions_are_told_without_importing_torch():
    code = f"import sys; from attnrec_dist.cli import main; main(['--version']); print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"attnrec \S+, Python {re.escape(platform.python_version())}, torch \d\S+\n\[\]\n", done.stdout)


@pytest.mark.parametrize("arguments", [["evaluate", "x", "--split", "train"], ["recommend", "x", "--top_k", "ten"]])
def test_what_the_parser_refuses_is_code_2_too(attnrec, arguments):
    done = attnrec(*arguments)
    assert done.code == ExitCode.USER_ERROR
    assert "usage: attnrec" in done.err


def test_a_misspelt_option_of_recommend_is_refused(attnrec, trained, tmp_path):
    refused(attnrec("recommend", trained.run, "--output", tmp_path / "o.parquet", "--topk", "3"), "unknown argument '--topk'")
    refused(attnrec("recommend", trained.run, "--output", tmp_path / "o.parquet", "--top_k", "0"), "at least 1")
    refused(attnrec("recommend", trained.run, "--output", tmp_path / "o.parquet", "--exclude", tmp_path / "x"), "no such file")
    refused(attnrec("recommend", trained.run, "--output", tmp_path), "is a directory; name the Parquet file")


def test_a_flipped_byte_in_a_shard(attnrec, copy):
    (shard,) = (copy.data / "sequences").iterdir()
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    refused(train(attnrec, copy, "--train.max_epochs", "3"), shard.name, "damaged", "prepare the data set again")
    assert json.loads((copy.run / "status.json").read_text())["state"] == "done"  # as it was


@pytest.mark.parametrize("file", ["objective.safetensors", "optimizer.safetensors", "progress.json"])
def test_a_truncated_checkpoint(attnrec, copy, file):
    newest = (copy.run / "last").resolve()
    content = (newest / file).read_bytes()
    (newest / file).write_bytes(content[:-3])
    before = sorted(path.name for path in (copy.run / "checkpoints").iterdir())
    done = train(attnrec, copy, "--train.max_epochs", "3")
    assert done.code == 0, done.err
    assert re.search(rf"{file}: has .* were written; going on from the one before it", done.err)
    assert f"going on from step {int(before[-2].removeprefix('step-'))}" in done.err


def test_a_checkpoint_of_other_data(attnrec, copy, tmp_path):
    (tmp_path / "other").mkdir()
    other = write_shop(tmp_path / "other", seed=1)
    shutil.rmtree(copy.data)
    assert attnrec("prepare", other.prepare_yaml, "--output", copy.data).code == 0
    refused(train(attnrec, copy, "--train.max_epochs", "3"), "was written with data fingerprint", "but this run has")
    refused(attnrec("evaluate", copy.run, "--data", copy.data), "was trained on the data set", "--data")
    refused(
        attnrec("recommend", copy.run, "--data", copy.data, "--output", tmp_path / "o.parquet"), "was trained on the data set"
    )


HOLDER = """
import sys, time
from pathlib import Path
from attnrec_dist.run_dir import RunDir
run = RunDir(Path(sys.argv[1]))
run.lock()
print("locked", flush=True)
time.sleep(600)
"""


def test_a_second_job_on_the_run_directory(attnrec, copy):
    status = (copy.run / "status.json").read_text()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(copy.run)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        refused(train(attnrec, copy), f"another job is training here (process {holder.pid} on ", "--run_dir")
        assert (copy.run / "status.json").read_text() == status, "the first job's status is not ours to write"
    finally:
        holder.kill()
        holder.communicate()
    assert train(attnrec, copy).code == 0


def test_a_run_directory_of_another_configuration(attnrec, copy):
    config = (copy.run / "config.yaml").read_text()
    refused(
        train(attnrec, copy, "--train.seed", "5", "--model.width", "16"),
        "started with another configuration",
        "train.seed: was 0, now 5",
        "model.width: was 8, now 16",
    )
    assert (copy.run / "config.yaml").read_text() == config
    free = ["--evaluation.baselines.neighbours", "5", "--tracking.log_every", "2", "--optimizer.lr", "1e-4"]
    assert train(attnrec, copy, *free).code == 0


def test_a_key_younger_than_the_run_is_its_default(attnrec, copy):
    config = copy.run / "config.yaml"
    older = "".join(line for line in config.read_text().splitlines(True) if "event_input" not in line)
    assert older != config.read_text()
    config.write_text(older)
    refused(train(attnrec, copy, "--data.event_input", "false"), "data.event_input: was True, now False")
    assert train(attnrec, copy).code == 0


def test_a_first_try_that_failed_does_not_stand_in_the_way(attnrec, shop, tmp_path):
    here = Shop(shop.path), "--run_dir", tmp_path / "run", "--train.max_steps", "3"
    refused(train(attnrec, *here, "--data.target_events", "[sell]"), "sell is not in the data set")
    assert train(attnrec, *here, "--data.target_events", "[buy]").code == 0
    refused(train(attnrec, *here), "data.target_events: was ['buy'], now None")


def test_a_model_may_be_left_without_the_types_of_events(attnrec, shop, tmp_path):
    run = tmp_path / "run"
    assert train(attnrec, Shop(shop.path), "--run_dir", run, "--train.max_steps", "3", "--data.event_input", "false").code == 0
    assert load(run).trained.model.embedding.events is None


def test_a_refused_start_leaves_no_run_directory(attnrec, shop, tmp_path):
    refused(attnrec("train", shop.run_yaml, "--run_dir", tmp_path / "run", "--data", tmp_path / "none"), "no such data set")
    assert not (tmp_path / "run").exists()


def test_evaluate_measures_what_it_is_asked(attnrec, trained, tmp_path):
    done = attnrec("evaluate", trained.run, "--evaluation.metrics", "[ndcg@5]", "--output", tmp_path / "figures.json")
    assert done.code == 0, done.err
    figures = json.loads((tmp_path / "figures.json").read_text())["customers"]["values"]["sasrec"]
    assert "next_basket/all/ndcg@5" in figures
    assert all(name.endswith("/ndcg@5") for name in figures)
    text = attnrec("evaluate", "--help-all").out
    assert "--evaluation.metrics" in text
    for key in ("every_epochs", "every_steps", "patience", "metric "):
        assert f"evaluation.{key}" not in text
    refused(
        attnrec("evaluate", trained.run, "--evaluation.patience", "3"),
        "error: --evaluation.patience: unknown key; known here: metrics",
    )


def test_a_data_set_that_moved_is_named_with_data(attnrec, copy, tmp_path):
    config = copy.run / "config.yaml"
    config.write_text("\n".join("  path: moved" if "  path:" in line else line for line in config.read_text().splitlines()))
    hint = f"The path stands in {config}, relative to the current directory; name the data set with --data DIR"
    refused(attnrec("evaluate", copy.run), "moved: no such data set", hint)
    done = attnrec("evaluate", copy.run, "--data", tmp_path / "none")
    refused(done, "none: no such data set")
    assert "The path stands in" not in done.err


def test_a_directory_with_something_else_in_it(attnrec, shop, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    refused(attnrec("train", shop.run_yaml, "--run_dir", tmp_path, "--data", shop.data), "holds other files and no run")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# Running on


def curve(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert len(losses) == len(dict(losses)), "a step is there twice"
    return dict(losses)


def test_a_finished_run_says_so(attnrec, trained):
    before = (trained.run / "metrics.jsonl").read_text()
    done = train(attnrec, trained)
    assert done.code == 0
    assert "nothing left to do" in done.err
    assert (trained.run / "metrics.jsonl").read_text() == before


def test_training_on_gives_the_curve_of_one_piece(attnrec, trained, tmp_path):
    whole = curve(trained.run)
    assert list(whole) == list(range(1, len(whole) + 1))
    assert all(math.isfinite(loss) for loss in whole.values())
    for steps in (4, 5, len(whole)):
        done = train(attnrec, Shop(trained.path), "--run_dir", tmp_path / "run", "--train.max_steps", steps)
        assert done.code == 0, done.err
    assert curve(tmp_path / "run") == whole


# Faults: code 1, and the last good checkpoint stays


def test_a_refit_is_as_many_epochs_on_all_that_came_before_the_test_part(attnrec, copy, tmp_path):
    refused(attnrec("refit", copy.run, "--data", copy.data), "events for validation", "--split.validation 0")
    split = ["--split.train", "0.85", "--split.validation", "0", "--split.test", "0.15"]
    assert attnrec("prepare", copy.prepare_yaml, "--output", tmp_path / "all", *split).code == 0
    (copy.run / "best").unlink()
    (copy.run / "best").symlink_to("checkpoints/step-00000003")  # half an epoch, had validation chosen so
    done = attnrec("refit", copy.run, "--data", tmp_path / "all")
    assert done.code == 0, done.err
    again, first = copy.path / "run-refit", load_run_config(copy.run / "config.yaml", {})
    last = max(curve(again))
    per_epoch = {run: max(curve(run)) / epochs_of(run) for run in (again, copy.run)}
    assert per_epoch[again] > per_epoch[copy.run]
    assert last == round(per_epoch[again] * 3 / per_epoch[copy.run])
    refitted = load_run_config(again / "config.yaml", {})
    assert refitted.model == first.model
    assert load(again).trained.checkpoint.name == f"step-{last:08d}"
    refused(attnrec("refit", copy.run), "--data DIR is missing")


def test_a_run_that_is_not_done_is_not_refitted(attnrec, copy, tmp_path):
    RunDir(copy.run).write_status("stopped", 3)
    refused(attnrec("refit", copy.run, "--data", copy.data), "is stopped, so its length is not chosen yet")


def epochs_of(run: Path) -> float:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max(line["epoch"] for line in lines if "epoch" in line)


def test_a_full_disk_ends_with_code_1_and_the_next_start_goes_on(attnrec, shop, trained, tmp_path, monkeypatch):
    import os

    run, real = tmp_path / "run", os.fsync
    saved = run / "checkpoints" / "step-00000006" / "complete.json"

    def full_after_six_steps(descriptor: int) -> None:
        if saved.exists():
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full_after_six_steps)
        done = attnrec("train", shop.run_yaml, "--run_dir", run, "--data", shop.data)
    assert done.code == ExitCode.FAULT
    assert "No space left on device" in done.err
    assert "free some space and run the same command again" in done.err
    assert saved.exists()
    done = attnrec("train", shop.run_yaml, "--run_dir", run, "--data", shop.data)
    assert done.code == 0, done.err
    assert "nothing left to do: step 6 of 6 is done" in done.err
    assert curve(run) == curve(trained.run)


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(plot, "COMMAND", dataclasses.replace(plot.COMMAND, run=interrupt))
    assert main(["plot", "x"]) == 130
    assert capsys.readouterr().err == "attnrec: interrupted\n"


def test_only_one_rank_tells_the_users_mistake(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", str(tmp_path / "none.yaml")]) == ExitCode.USER_ERROR
    assert capsys.readouterr().err == ""
