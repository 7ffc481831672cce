"""Whatever a key is given: it arrives as it was meant and stands so in config.yaml, or is refused by its name."""

from __future__ import annotations

import datetime
import string
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.analysis import configuration
from cohort.analysis.configuration import flat
from cohort.errors import Renamed, UsageError
from cohort.training.config import (
    DOTTED,
    FIELDS,
    PLACES,
    SECTIONS,
    TrainConfig,
    from_file,
    from_options,
    from_set,
    keys,
    make_config,
    read_config,
)
from cohort.training.reading import read_yaml
from cohort.training.sections import CheckpointConfig, SamplingConfig

FEW = settings(max_examples=300, deadline=None)
WITH_SECTIONS = [f"{section}.{name}" for section, name in PLACES.values() if section]
FLAT = [key for key in keys() if "." not in key]

# what people write --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-3", -3),
        ("1e-4", 1e-4),
        ("1.5E+3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("2024-01-02", "2024-01-02"),
        ("1_000", "1_000"),
        ("true", True),
        ("", None),
        ("~", None),
        ("[a, 1, 2.5, no]", ["a", 1, 2.5, "no"]),
        ("=", "="),
        ("{a: 01}", {"a": 1}),
        ("1e", "1e"),
    ],
)
def test_yaml_is_read_as_it_is_meant(text, value):
    found = read_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
MERGED = "a: &a {x: 1}\n" + "".join(f"{b}: &{b}\n  <<: [*{a}, *{a}]\n" for a, b in zip("abcd", "bcde", strict=True))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps: 1\nlr: 2\nsteps: 3", "here, line 3: malformed YAML: 'steps' is given twice"),
        (BOMB, "here, line 2: malformed YAML: *a stands for a list or a mapping: write it out"),
        (MERGED, "stands for a list or a mapping"),
        ("a: &a [*a]", "stands for a list or a mapping"),
        ("[" * 3000, "here: it is nested too deeply"),
        ("a: [", "here: malformed YAML: "),
        ("a: \x00", "here: malformed YAML: "),
        ("9" * 5000, "Exceeds the limit"),
        ("!!python/object:os.system x", "could not determine a constructor"),
        ("*nowhere", "found undefined alias"),
    ],
)
def test_yaml_that_stands_for_more_than_it_says_or_for_nothing_is_refused(text, says):
    with pytest.raises(UsageError) as error:
        read_yaml(text, "here")
    assert says in str(error.value)
    assert len(str(error.value)) < 300


def test_a_scalar_may_be_named_once_and_used_twice():
    assert read_yaml("data: &d x.jsonl\neval_data: *d", "here") == {"data": "x.jsonl", "eval_data": "x.jsonl"}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"PK\x03\x04\x00\x9c", b"", b"- 1\n- 2\n", b"5: 1\n", b"true\n"])
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"^--config: .*c\.yaml"):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("path", ["", ".", "a" * 5000, "no/such"])
def test_configurations_that_are_no_files_are_refused(path: str):
    with pytest.raises(UsageError, match=r"^--config: .* cannot be read"):
        read_config(Path(path))


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("a.b.c=1", "there is no key 'a.b.c'"),
        ("checkpoint=5", "did you mean checkpoint.keep"),
        ("=5", "no key ''"),
        (".=1", "no key '.'"),
        ("checkpoint.every.x=1", "no key 'checkpoint.every.x'"),
        ("checkpoint=[1]", "--set checkpoint="),
        ("steps=true", "--set steps=true: Input should be a number, not true or false"),
        ("steps=2.5", "--set steps=2.5"),
        ("checkpoint={every: 3, evry: 2}", "no key 'checkpoint.evry'"),
        ("stop_token_ids=[true]", "--set stop_token_ids="),
        ("logit_bias={true: 1}", "--set logit_bias="),
        ("data=[{prompt: a}]", "--set data takes a file"),
        ("lr=.nan", "--set lr="),
        ("reward=[1]", "--set reward="),
        ("bos=5", "--set bos=5"),
        ("seed=99999999999999999999", "--set seed="),
        ("model=", "--set model="),
        ("reward_timeout=1e300", "--set reward_timeout="),
        ("threads=2000000000", "--set threads="),
    ],
)
def test_settings_that_cannot_be_are_refused_as_they_were_written(item, says):
    with pytest.raises(UsageError) as error:
        make_config(from_set([item]))
    assert says in str(error.value)


def test_a_text_stays_the_text_that_was_set():
    made = make_config(
        from_set(["system=5", "prompt_field=007", "wandb=no", "data=2024", "stop=1.0", "answer_field=true"])
    )
    assert (made.dataset.system, made.dataset.prompt_field, made.output.wandb, made.dataset.data) == (
        "5",
        "007",
        "no",
        "2024",
    )
    assert (made.sampling.stop, made.dataset.answer_field) == (["1.0"], "true")


def test_what_python_calls_numbers_paths_and_types_is_taken():
    made = make_config(
        {
            "steps": np.int64(5),
            "lr": np.float32(0.5),
            "temperature": torch.tensor(0.5),
            "out": Path("a/b"),
            "dtype": torch.bfloat16,
            "device": torch.device("cuda", 1),
            "data": Path("x.jsonl"),
            "stop": ("a", "b"),
        }
    )
    assert (made.optimisation.steps, made.optimisation.lr, made.sampling.temperature, made.out) == (5, 0.5, 0.5, "a/b")
    assert (made.policy.dtype, made.machine.device, made.dataset.data, made.sampling.stop) == (
        "bfloat16",
        "cuda:1",
        "x.jsonl",
        ["a", "b"],
    )
    assert yaml.safe_load(yaml.safe_dump(made.plain())) == made.plain()


def test_rewards_may_be_functions_with_weights():
    def mine(completions):
        return [0.0] * len(completions)

    for value in (mine, (0.5, mine), [mine], [(0.5, mine), "math"], (0.5, "math")):
        assert make_config({"reward": value}).rewards.reward
    assert make_config({"reward": [(0.5, mine), "math"]}).plain()["reward"] == ["0.5*<Python function mine>", "math"]
    for none in ([5], [True, "math"]):
        with pytest.raises(UsageError, match="is no reward"):
            make_config({"reward": none})


def test_what_was_given_from_python_cannot_be_repeated_from_a_file(tmp_path: Path):
    make_config({"data": [{"prompt": "a"}], "reward": print}).save(tmp_path / "c.yaml")
    with pytest.raises(UsageError, match="data was given from Python"):
        from_file(tmp_path / "c.yaml")


# anything -----------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.text(string.printable, max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 100)
    | st.floats()
    | st.floats(0, 2)
    | texts
    | st.sampled_from(
        ["auto", "nan", "-inf", "1e999", "0x1f", "1_0", " 5 ", "٣", "null", "a" * 5000, "../x", "~", "\ud800"]
    )
)
values = st.recursive(
    scalars | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(), inner, max_size=3),
    max_leaves=5,
)


def same(key: str, written: object, arrived: object) -> bool:
    """What arrived says what was written: numbers may be written as texts, one text for a list of one."""
    if isinstance(written, str) and not isinstance(arrived, str):
        if isinstance(arrived, list):
            return arrived == [written]
        if isinstance(arrived, bool):
            return written.lower() in (
                {"true", "yes", "on", "1", "y", "t"} if arrived else {"false", "no", "off", "0", "n", "f"}
            )
        return float(written) == arrived
    if isinstance(written, bool) != isinstance(arrived, bool):
        return written in (0, 1) and isinstance(arrived, bool)
    if isinstance(written, datetime.date):
        return False
    if isinstance(written, list) and isinstance(arrived, list):
        return len(written) == len(arrived) and all(map(same, [key] * len(written), written, arrived))
    if isinstance(written, dict) and isinstance(arrived, dict):
        return set(written) == set(arrived) and all(same(key, written[k], arrived[k]) for k in written)
    return written == arrived


@pytest.mark.parametrize(("key", "value"), [("method", b"grpo"), ("temperature", 1e-300)])
def test_what_no_run_can_do_with_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{key}"):
        make_config({key: value})


@FEW
@given(st.sampled_from(FLAT), values)
def test_a_value_arrives_unchanged_or_is_refused_by_its_key(tmp_path_factory: pytest.TempPathFactory, key, value):
    try:
        made = make_config({key: value})
    except UsageError as error:
        assert str(error).startswith(key)
        assert len(str(error)) < 1000
        return
    if key not in ("data", "pairs", "eval_data"):
        assert same(key, value, made.plain()[key])
    path = tmp_path_factory.getbasetemp() / "c.yaml"
    made.save(path)
    if key not in ("data", "pairs", "eval_data") or isinstance(value, str | None):
        assert make_config(from_file(path)).plain() == made.plain()


@FEW
@given(
    st.sampled_from([*keys(), *WITH_SECTIONS, *SECTIONS, "nothing"]),
    texts | st.sampled_from(["5", "0.5", "true", "[1]", "{a: 1}"]),
)
def test_a_setting_is_read_or_refused_by_what_was_written(key, text):
    try:
        made = make_config(from_set([f"{key}={text}"]))
    except UsageError as error:
        assert str(error).startswith(f"--set {key}")
        return
    arrived = made.sections() if key in WITH_SECTIONS else made.plain()
    for part in key.split("."):
        arrived = arrived[part]
    if text.strip() in ("", "null", "Null", "NULL", "~") or text.lstrip().startswith("#"):
        assert arrived == TrainConfig().plain().get(key, arrived)
    elif isinstance(arrived, str):
        assert arrived == text.strip() or text.strip()[0] in "'\"" or "#" in text or read_yaml(text, "") == arrived


@FEW
@given(st.sampled_from(FLAT), texts)
def test_an_option_is_taken_as_it_is_or_refused_by_its_name(key, text):
    try:
        made = make_config(from_options({key: text}))
    except UsageError as error:
        assert str(error).startswith(f"--{key.replace('_', '-')}")
        return
    assert same(key, text, made.plain()[key])


@FEW
@given(st.text(string.printable, max_size=60) | st.binary(max_size=40).map(lambda b: b.decode("latin-1")))
def test_any_text_is_a_configuration_or_refused(tmp_path_factory: pytest.TempPathFactory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        make_config(from_file(path))
    except UsageError as error:
        assert "any.yaml" in str(error)


# sections -----------------------------------------------------------------------------------------------------------


def test_a_key_is_never_ambiguous():
    fields = [name for section in SECTIONS.values() for name in section.model_fields]
    assert len(set(fields)) == len(fields)
    assert not set(SECTIONS) & set(PLACES)
    assert {*configuration.SECTIONS, *DOTTED} == set(SECTIONS)
    assert set(FIELDS) == set(keys())


@pytest.mark.parametrize(
    "written",
    [
        {"top_p": 0.5, "steps": 7, "checkpoint": {"keep": 4}, "data": "x.jsonl"},
        {"sampling.top_p": 0.5, "optimisation.steps": 7, "checkpoint.keep": 4, "dataset.data": "x.jsonl"},
        {
            "sampling": {"top_p": 0.5},
            "optimisation": {"steps": 7},
            "checkpoint": {"keep": 4},
            "dataset": {"data": "x.jsonl"},
        },
        {"sampling": SamplingConfig(top_p=0.5), "steps": 7, "checkpoint": CheckpointConfig(keep=4), "data": "x.jsonl"},
    ],
)
def test_a_key_goes_by_its_own_name_and_with_its_sections(tmp_path: Path, written):
    made = make_config(written)
    assert (made.sampling.top_p, made.optimisation.steps, made.checkpoint.keep) == (0.5, 7, 4)
    assert made.given() == {"data": "x.jsonl", "top_p": 0.5, "steps": 7, "checkpoint.keep": 4}
    assert make_config(made.given()) == made
    made.save(tmp_path / "c.yaml")
    stored = yaml.safe_load((tmp_path / "c.yaml").read_text())
    assert (stored["sampling"]["top_p"], stored["method"]) == (0.5, "grpo")
    # As versions before sections wrote it, and as they do now.
    for form in (made.plain(), stored):
        assert flat(form) == made.plain()
        (tmp_path / "again.yaml").write_text(yaml.safe_dump(form))
        assert make_config(from_file(tmp_path / "again.yaml")).plain() == made.plain()


def test_a_later_layer_wins_however_a_key_is_written():
    made = make_config({"sampling": {"top_p": 0.1, "top_k": 3}}, {"top_p": 0.2}, from_set(["sampling.top_p=0.3"]))
    assert (made.sampling.top_p, made.sampling.top_k) == (0.3, 3)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("sampling.top_p=9", "--set sampling.top_p=9: Input should be less"),
        ("sampling.top_q=1", "no key 'sampling.top_q'; did you mean sampling.top_p"),
        ("smapling.top_p=1", "did you mean top_p?"),
        ("every=3", "did you mean checkpoint.every?"),
        ("sampling=3", "no key 'sampling'; did you mean sampling."),
        ("samplin=3", "did you mean sampling"),
        ("dataset.data=[1]", "--set dataset.data takes a file"),
    ],
)
def test_what_is_wrong_in_a_section_is_said_as_it_was_written(item, says):
    with pytest.raises(UsageError) as error:
        make_config(from_set([item]))
    assert says in str(error.value)


def test_a_text_in_a_section_stays_the_text_that_was_set():
    assert make_config(from_set(["dataset.system=5"])).dataset.system == "5"


def test_what_a_file_has_wrong_in_a_section_is_named(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("sampling:\n  top_p: 9\n")
    with pytest.raises(UsageError, match=r"c\.yaml: sampling\.top_p = 9: Input"):
        make_config(from_file(path))
    path.write_text("top_p: 0.9\nsampling:\n  top_p: 0.8\n")
    with pytest.raises(UsageError, match=r"c\.yaml: sampling\.top_p = 0\.8: it is given as 'top_p', too"):
        from_file(path)
    make_config({"data": [{"prompt": "a"}]}).save(path)
    with pytest.raises(UsageError, match="data was given from Python"):
        from_file(path)


def test_a_model_is_taken_by_the_name_that_it_had_and_says_its_own():
    with pytest.warns(Renamed, match="the model nursery is called toy now"):
        assert make_config({"model": "nursery"}).policy.model == "toy"
    assert flat({"model": "nursery", "method": "grpo"}) == {"model": "toy", "method": "grpo"}
