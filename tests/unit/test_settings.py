"""Strict settings: what YAML means, overrides, suggestions, descriptions, and configurations that read back equal."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from attnrec_dist.engine.config import RunConfig, load_run_config, run_config_class
from attnrec_dist.errors import ConfigError
from attnrec_dist.losses import LOSSES
from attnrec_dist.models import MODELS
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.settings import (
    Section,
    apply_overrides,
    build,
    describe,
    iterate_keys,
    parse_overrides,
    parse_yaml,
    read_yaml,
    take_overrides,
    to_yaml,
)


class Inner(Section):
    seed: int = Field(0, description="an integer")
    rate: float = Field(0.5, gt=0, description="a number")
    names: list[str] = Field([], description="texts")


class Outer(Section):
    train: Inner = Field(Inner(), description="how")
    maybe: Inner | None = Field(None, description="or not")
    name: str = Field("x", description="a text")
    any: dict[str, str] = Field({}, description="free keys")
    flag: bool = Field(False, description="a flag")
    betas: tuple[float, float] = Field((0.9, 0.99), description="two numbers")


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2e+1", -20.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        (".inf", math.inf),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2011-09-01", "2011-09-01"),
        ("2011-09-01 10:00:00", "2011-09-01 10:00:00"),
        ("'1'", "1"),
        ("null", None),
        ("~", None),
        ("", None),
        ("=", "="),
        ("e3", "e3"),
        ("85123A", "85123A"),
        ("[1, a, 1e2]", [1, "a", 100.0]),
    ],
)
def test_scalars_mean_what_they_look_like(text, value):
    read = parse_yaml(text, "t")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "train: {seed: 1, seed: 1}", "a: 1\nb: {c: {d: 1, d: 2}}"])
def test_a_key_given_twice_is_refused_with_its_line(text):
    with pytest.raises(ConfigError, match=r"file.yaml, line \d, column \d+: not valid YAML: key '\w+' is given twice"):
        parse_yaml(text, "file.yaml")


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\t- x", "!!python/object:os.system {}", "'open"])
def test_broken_or_dangerous_yaml_is_refused(text):
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml(text, "t")


def test_files_that_are_no_config(tmp_path):
    (tmp_path / "quickstart.yaml").write_text("a: 1")
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, message in {
        "quickstrat.yaml": r"no such config file; did you mean .*quickstart.yaml\?",
        "list.yaml": "found a list",
        "empty.yaml": "found nothing",
        "binary.yaml": "cannot be read as text",
        "nowhere/x.yaml": "no such config file",
        ".": "is a directory",
    }.items():
        with pytest.raises(ConfigError, match=message):
            read_yaml(tmp_path / name)
    assert read_yaml(tmp_path / "quickstart.yaml") == {"a": 1}


# Overrides


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (["--train.seed", "1"], {"train.seed": 1}),
        (["--train.seed=1"], {"train.seed": 1}),
        (["--train.seed", "-1"], {"train.seed": -1}),
        (["--train.rate", "-1e-3"], {"train.rate": -1e-3}),
        (["--name", "-x"], {"name": "-x"}),
        (["--name=--x"], {"name": "--x"}),
        (["--name", "a=b"], {"name": "a=b"}),
        (["--name", "no"], {"name": "no"}),
        (["--train.names", "[a, no]"], {"train.names": ["a", "no"]}),
        (["--maybe", "null"], {"maybe": None}),
        (["--name", ""], {"name": None}),
        (["--name", "two words"], {"name": "two words"}),
        (["--a.b", "1", "--a.b", "2"], {"a.b": 2}),
        ([], {}),
    ],
)
def test_overrides_are_yaml(arguments, overrides):
    assert parse_overrides(arguments) == overrides


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.seed"], "a value is missing; type --train.seed VALUE"),
        (["--train.seed", "--name", "x"], "--train.seed: a value is missing"),
        (["stray"], "unexpected argument 'stray'"),
        (["--"], "unexpected argument '--'"),
        (["--name", "[1"], "--name, line 1, column 3: not valid YAML"),
    ],
)
def test_broken_overrides_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        parse_overrides(arguments)
    assert message in str(caught.value)


def test_overrides_stand_anywhere_on_the_command_line():
    line = ["train", "--train.seed", "-1", "c.yaml", "--run_dir", "x", "--data.path=my dir", "--a.b", "--data", "d", "--c.d"]
    taken, others = take_overrides(line)
    assert taken == ["--train.seed", "-1", "--data.path=my dir", "--a.b", "--c.d"]
    assert others == ["train", "c.yaml", "--run_dir", "x", "--data", "d"]


def test_nested_overrides_make_sections_and_leave_the_original_alone():
    tree = {"train": {"seed": 1, "deep": {"a": 1}}, "name": "x"}
    changed = apply_overrides(tree, {"train.deep.b": 2, "new.section.key": 3, "name.inner": 4})
    assert changed == {"train": {"seed": 1, "deep": {"a": 1, "b": 2}}, "name": {"inner": 4}, "new": {"section": {"key": 3}}}
    assert tree == {"train": {"seed": 1, "deep": {"a": 1}}, "name": "x"}


# What is refused, and what is suggested


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"train": {"sead": 1}}, "f.yaml: train.sead: unknown key; did you mean train.seed?"),
        ({"trian": {"seed": 1}}, "f.yaml: trian: unknown key; did you mean train?"),
        ({"seed": 1}, "f.yaml: seed: unknown key; did you mean train.seed?"),
        ({"zzzz": 1}, "f.yaml: zzzz: unknown key; known here: train, maybe, name, any, flag, betas"),
        ({"maybe": {"raet": 1}}, "f.yaml: maybe.raet: unknown key; did you mean maybe.rate?"),
        (
            {"train": {"seed": "many"}},
            "train.seed: input should be a valid integer, unable to parse string as an integer (got 'many')",
        ),
        ({"train": {"rate": 0}}, "train.rate: input should be greater than 0 (got 0)"),
        ({"train": 3}, "train: input should be a valid dictionary"),
        ({"train": {"names": 3}}, "f.yaml: train.names: input should be a valid list"),
        ({"train": {"flag": True}}, "f.yaml: train.flag: unknown key; did you mean flag?"),
        ({"maybe": {"betas": 1}}, "f.yaml: maybe.betas: unknown key; did you mean betas?"),
        ({"betas": [0.9]}, "betas.1: this key is required"),
        ({"name": None}, "name: input should be a valid string (got None)"),
    ],
)
def test_a_wrong_tree_is_told_what_is_wrong_where(tree, message):
    with pytest.raises(ConfigError) as caught:
        build(Outer, tree, "f.yaml")
    assert message in str(caught.value)


def test_the_problem_of_an_option_is_not_told_as_the_files():
    tree = {"train": {"sead": 1, "rate": -1, "names": ["a", 2]}, "flagg": True}
    with pytest.raises(ConfigError) as caught:
        build(Outer, tree, "f.yaml", ["train.rate", "train.names", "flagg"])
    told = str(caught.value).splitlines()
    assert sorted(line.split(": ")[0] for line in told) == ["--flagg", "--train.names.1", "--train.rate", "f.yaml"]
    assert "--flagg: unknown key; did you mean --flag?" in told
    assert "f.yaml: train.sead: unknown key; did you mean train.seed?" in told


def test_one_text_is_a_list_of_one():
    assert build(Outer, {"train": {"names": "no"}}, "t").train.names == ["no"]
    assert build(RunConfig.model_fields["data"].annotation, {"path": "d", "target_events": "buy"}, "t").target_events == ["buy"]
    assert build(Outer, {"name": "x"}, "t").name == "x"


def test_the_preparation_suggests_the_same_key_elsewhere():
    tree = {"input": {"files": "log.csv"}, "columns": {"user": "u", "item": "i", "timestamp": "t"}, "output": {"dir": "d"}}
    assert build(PrepareConfig, tree, "t").input.files == ["log.csv"]
    with pytest.raises(ConfigError, match=r"t: filters.delimiter: unknown key; did you mean input.delimiter\?"):
        build(PrepareConfig, tree | {"filters": {"delimiter": ";"}}, "t")


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        build(Outer, {"train": {"sead": 1, "rate": -1}, "flag": "perhaps"}, "f.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_sections_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Inner().seed = 3


# Every key of every section


def sections() -> dict[str, type[Section]]:
    found: dict[str, type[Section]] = {"train": RunConfig, "prepare": PrepareConfig}
    found |= {f"model {name}": model.Config for name, model in MODELS.items()}
    found |= {f"loss {name}": loss.Config for name, loss in LOSSES.items()}
    return found


@pytest.mark.parametrize("name", sections())
def test_every_key_has_a_description_and_stands_in_the_help(name):
    section = sections()[name]
    text = describe(section)
    for key, field in iterate_keys(section):
        if key.endswith("name") and name.startswith(("model", "loss")):
            continue
        assert field.description, key
        assert field.description.strip().splitlines()[0] in text, key


def test_help_shows_types_and_defaults():
    text = describe(Outer)
    assert "  --train.rate  number, default 0.5\n      a number" in text
    assert "train:  how" in text
    assert "--flag  true|false, default false" in text
    assert "--betas  tuple[number, number], default [0.9, 0.99]" in text
    assert "--data.path  text, required" in describe(RunConfig)
    assert "--filters.where  dict[text, min/max], default {}" in describe(PrepareConfig)
    for section in (*sections().values(), Outer):
        assert not re.search(r"class|typing|attnrec_dist", describe(section))


# to_yaml reads back


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=12) | st.sampled_from(
    [
        "no",
        "1e-3",
        "1e5",
        "0x1",
        "010",
        "1:30",
        "2011-09-01",
        "null",
        "~",
        "=",
        "<<",
        "true",
        ".5",
        "1_000",
        "- a",
        "a: b",
        "#x",
        "a\nb",
        "",
    ]
)
RATES = st.floats(min_value=1e-300, allow_infinity=False)


@settings(deadline=None, max_examples=150)
@given(
    st.builds(
        Outer,
        train=st.builds(Inner, seed=st.integers(-(2**70), 2**70), rate=RATES, names=st.lists(TEXTS, max_size=3)),
        maybe=st.none() | st.builds(Inner),
        name=TEXTS,
        any=st.dictionaries(TEXTS, TEXTS, max_size=3),
        flag=st.booleans(),
        betas=st.tuples(RATES, RATES),
    )
)
def test_any_configuration_reads_back_equal(outer):
    assert build(Outer, parse_yaml(to_yaml(outer), "t"), "t") == outer


RUN = {"data": {"path": "d"}, "model": {"name": "sasrec"}}


@settings(deadline=None, max_examples=20)
@given(TEXTS.filter(bool), st.lists(TEXTS, max_size=3), RATES, st.integers())
def test_a_run_reads_back_equal(path, events, rate, seed):
    tree = apply_overrides(RUN, {"data.path": path, "data.target_events": events, "optimizer.lr": rate, "train.seed": seed})
    config = build(run_config_class(tree), tree, "t")
    written = parse_yaml(to_yaml(config), "t")
    assert build(run_config_class(written), written, "t").model_dump() == config.model_dump()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.name": "sasrek"}, "did you mean sasrec"),
        ({"loss.name": "softmux"}, "did you mean softmax"),
        ({"model": None}, "model: this section is required: write `model: {name: ...}`"),
        ({"model": {"width": 3}}, "model: which one? write `model: {name: ...}`"),
        ({"model.widht": 3}, "--model.widht: unknown key; did you mean --model.width?"),
        ({"train.lr": 3}, "--train.lr: unknown key; did you mean --optimizer.lr?"),
        ({"trian.seed": 3}, "--trian.seed: unknown key; did you mean --train.seed?"),
        ({"train.max_steps": None, "train.max_epochs": None}, "the run would never end"),
        ({"data.context": 200}, "leaves no room in a window"),
        ({"train.precision": "fp8"}, "train.precision: input should be 'fp32', 'tf32', 'bf16', 'fp16' or 'fp64'"),
        ({"evaluation.metrics": ["precison@10"]}, "evaluation.metrics"),
        ({"evaluation.metrics": []}, "evaluation.metrics"),
        (
            {"evaluation.metric": "ndcg@10"},
            "evaluation: metric: 'ndcg@10' is not measured; did you mean next_basket/all/ndcg@10?",
        ),
        ({"evaluation.metrics": ["recall@5"]}, "'next_basket/all/ndcg@10' is not measured"),
        ({"data.path": None}, "data.path"),
    ],
)
def test_a_run_config_that_cannot_work_is_refused(tmp_path, overrides, message):
    (tmp_path / "run.yaml").write_text("data: {path: d}\nmodel: {name: sasrec}\n")
    with pytest.raises(ConfigError) as caught:
        load_run_config(tmp_path / "run.yaml", overrides)
    assert message in str(caught.value)
    assert any(str(caught.value).startswith(start) for start in (str(tmp_path / "run.yaml"), *(f"--{key}" for key in overrides)))
