"""Text to tokens and back, with the tokenizers that people's models have."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.data.messages import CALLS, is_chat, messages_of
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.pieces import Pieces
from cohort.types import Prompt
from tests.model_folders import NAMES

Load = Callable[..., CausalLM]


@pytest.fixture(scope="session")
def load(model_folder: Callable[[str], Path]) -> Load:
    @functools.cache
    def made(name: str, **options: Any) -> CausalLM:
        return CausalLM.load(str(model_folder(name)), **options)

    return made


def asked(policy: CausalLM, source: Any, system: str | None = None) -> Prompt:
    text, tokens = policy.renderer.prompt(source, system)
    return Prompt("asked", text, tokens, source)


def written(policy: CausalLM, tokens: tuple[int, ...]) -> str:
    """Text of a sequence, without what the tokenizer put before it."""
    begin = len(policy.renderer._before) if not policy.renderer.has_template else 0
    return policy.renderer.whole(tokens[begin:])


# what follows a prompt -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("Once upon a time, there was a", " little girl named Lily."),
        ("Lily had a red", "ball."),
        ("What is 2 + 2? ", "4"),
        ("a == b", "\n\nx != y"),
        ("a little", ""),
        ("naïve café", " 你好 😀"),
    ],
)
def test_prompt_and_completion_together_are_what_was_written(
    load: Load, name: str, prompt: str, completion: str
) -> None:
    policy = load(name)
    made = asked(policy, prompt)
    ids = policy.renderer.encode_completion(made, completion)
    assert written(policy, (*made.tokens, *ids)) == made.text + completion
    assert policy.renderer.decode(ids) == completion
    assert "".join(Pieces(policy.renderer.tokenizer)(ids)) == completion
    joint = policy.renderer.encode(made.text + completion, start=True)
    if joint[: len(made.tokens)] == made.tokens:
        assert ids == joint[len(made.tokens) :]
    # No more than one token for the end.
    assert policy.renderer.encode_completion(made, completion, end=True)[: len(ids)] == ids
    assert len(policy.renderer.encode_completion(made, completion, end=True)) == len(ids) + 1


@pytest.mark.parametrize("name", ["llama2", "metaspace"])
def test_no_space_mark_comes_before_a_text_in_the_middle(load: Load, name: str) -> None:
    policy = load(name)
    for text in ("ball.", "</think>\n\n", " park", "  two", "\nline"):
        assert policy.renderer.decode(policy.renderer.encode(text)) == text
    made = asked(policy, "Lily had a red ball")
    assert policy.renderer.tokenizer.convert_ids_to_tokens(policy.renderer.encode_completion(made, "4"))[0] == "4"
    # Its own tokenizer puts a mark there.
    assert (
        policy.renderer.tokenizer.convert_ids_to_tokens(
            policy.renderer.tokenizer("4", add_special_tokens=False)["input_ids"]
        )[0]
        != "4"
    )


def test_a_completion_ends_as_a_turn_does_and_only_once(load: Load) -> None:
    ends = {"chatbase": "<|im_end|>", "gemma": "<end_of_turn>", "chat": "<|im_end|>", "llama2": "</s>", "plain": "</s>"}
    for name, end in ends.items():
        policy = load(name)
        made = asked(policy, "1 + 1 = ")
        for completion in ("4", f"4{end}"):
            ids = policy.renderer.encode_completion(made, completion, end=True)
            assert policy.renderer.tokenizer.convert_ids_to_tokens(ids).count(end) == 1
            assert ids[-1] in policy.renderer.stop_ids
    # A text that goes to the model as it is ends as texts do.
    policy = load("chatbase", prompt_format="text")
    assert (
        policy.renderer.tokenizer.convert_ids_to_tokens(
            policy.renderer.encode_completion(asked(policy, "1"), "4", end=True)
        )[-1]
        == "<|endoftext|>"
    )


# prompts -------------------------------------------------------------------------------------------------------------


def test_a_prompt_does_not_end_with_what_the_tokenizer_appends(load: Load) -> None:
    policy = load("addeos")
    whole = policy.renderer.tokenizer("What is 2 + 2?")["input_ids"]
    assert policy.renderer.tokenizer.convert_ids_to_tokens(whole)[-1] == "</s>"
    assert list(policy.renderer.encode("What is 2 + 2?", start=True)) == whole[:-1]
    assert policy.renderer.encode("", start=True) == (policy.renderer.tokenizer.bos_token_id,)


def test_the_beginning_of_a_sequence_is_there_once(load: Load) -> None:
    for name in ("plain", "gemma"):
        for bos in (False, True):
            policy = load(name, bos=bos)
            for text in ("a", f"{policy.renderer.tokenizer.bos_token}a"):
                tokens = (
                    policy.renderer.prompt(text)[1]
                    if name == "plain"
                    else policy.renderer.encode(policy.renderer.render("a"), start=True)
                )
                assert tokens.count(policy.renderer.tokenizer.bos_token_id) == 1
    assert load("chat").renderer.prompt("a")[1].count(load("chat").renderer.tokenizer.eos_token_id) == 1


def test_whether_a_text_goes_through_the_template_is_a_setting(load: Load) -> None:
    chat, messages = (
        "<|im_start|>user\n1 + 1<|im_end|>\n<|im_start|>assistant\n",
        [{"role": "user", "content": "1 + 1"}],
    )
    for how, expected in (("auto", chat), ("chat", chat), ("text", "1 + 1")):
        policy = load("chat", prompt_format=how)
        assert policy.renderer.prompt("1 + 1")[0] == expected
        assert policy.renderer.prompt(messages)[0] == chat
    assert load("gemma", prompt_format="text").renderer.prompt("1")[1] == load("gemma").renderer.encode("1")
    with pytest.raises(UsageError, match=r"prompt_format is chat, but the tokenizer of .* has no chat template"):
        load("plain", prompt_format="chat")


@pytest.mark.parametrize(("said", "rest"), [("Well", "Well"), ("Well, ", "Well, "), ("Well\n", "Well\n")])
def test_a_prompt_that_ends_with_the_assistant_is_gone_on_with(load: Load, said: str, rest: str) -> None:
    source = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": said}]
    assert load("chat").renderer.render(source).endswith(f"<|im_start|>assistant\n{rest}")
    assert load("gemma").renderer.render(source).endswith(f"<start_of_turn>model\n{rest}")
    assert load("plain").renderer.render(source) == f"Hi\n\n{said}"
    made = asked(load("chat"), source)
    ids = load("chat").renderer.encode_completion(made, "done", end=True)
    assert load("chat").renderer.whole((*made.tokens, *ids)) == f"{made.text}done<|im_end|>"


def test_an_empty_turn_of_the_assistant_asks_it_to_speak(load: Load) -> None:
    source = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]
    assert load("chat").renderer.render(source) == load("chat").renderer.render("Hi")


# what others say behind a turn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat", "gemma", "chatbase", "specialtags"])
@pytest.mark.parametrize("said", ["2", "it is 2\n", "你好 😀"])
@pytest.mark.parametrize("answer", ["no, again", "x != y , a", [{"role": "user", "content": "why?"}]])
def test_a_conversation_that_grew_is_the_one_that_is_written(load: Load, name: str, said: str, answer: Any) -> None:
    """Prompt, turn and answer together are what the template makes of the whole."""
    renderer = load(name).renderer
    prompt = asked(load(name), "Hi")
    turn = renderer.encode_completion(prompt, said, end=True)
    grown = (*prompt.tokens, *turn, *renderer.answer(prompt, answer, turn[-1]))
    others = [{"role": "user", "content": answer}] if isinstance(answer, str) else answer
    whole = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": said}, *others]
    expected = renderer.render(whole)
    # Gemma's template trims what was said; what was drawn stays as it is.
    assert renderer.whole(grown) == (expected if name != "gemma" else expected.replace(said.strip(), said))


def test_a_turn_that_ended_otherwise_is_ended_by_the_answer(load: Load) -> None:
    renderer = load("chatbase").renderer
    prompt = asked(load("chatbase"), "Hi")
    tail = "\n<|im_start|>user\nno<|im_end|>\n<|im_start|>assistant\n"
    inner, end, text_end = (renderer.encode(text)[-1] for text in ("a", "<|im_end|>", "<|endoftext|>"))
    assert renderer.whole(renderer.answer(prompt, "no", end)) == tail
    # By a stop string, by the token that ends a text, or not at all.
    for last in (inner, text_end, None):
        assert renderer.whole(renderer.answer(prompt, "no", last)) == f"<|im_end|>{tail}"


def test_a_thought_is_opened_again_in_every_turn(load: Load) -> None:
    renderer = load("prefill").renderer
    tail = renderer.whole(renderer.answer(asked(load("prefill"), "Hi"), "no", renderer.turn.end))
    assert tail.endswith("<|im_start|>assistant\n<think>\n")


def test_without_a_template_an_answer_stands_as_it_is(load: Load) -> None:
    renderer = load("plain").renderer
    prompt = asked(load("plain"), "Hi")
    assert renderer.whole(renderer.answer(prompt, "\nno. ", 2)) == "\nno. "
    messages = [{"role": "user", "content": "no"}, {"role": "user", "content": "well?"}]
    assert renderer.whole(renderer.answer(prompt, messages)) == "\n\nno\n\nwell?"
    text = load("chat", prompt_format="text").renderer
    assert text.whole(text.answer(Prompt("p", "Hi", (1,), "Hi"), " no")) == " no"


def test_what_a_template_does_not_take_is_refused(load: Load) -> None:
    for said in ([{"role": "system", "content": "4"}], [{"role": "assistant", "content": "4"}]):
        with pytest.raises(UsageError, match="must alternate"):
            load("gemma").renderer.answer(asked(load("gemma"), "Hi"), said)


# what ends a rollout, and what a reward sees -------------------------------------------------------------------------


def test_the_end_of_a_turn_ends_a_rollout(load: Load) -> None:
    ends = {
        name: load(name).renderer.tokenizer.convert_ids_to_tokens(sorted(load(name).renderer.stop_ids))
        for name in NAMES
    }
    assert ends["chatbase"] == ["<|endoftext|>", "<|im_end|>"]
    assert ends["gemma"] == ["<eos>", "<end_of_turn>"]
    assert ends["chat"] == ["<|im_end|>"]
    assert ends["llama2"] == ["</s>"]


def test_a_template_says_where_a_turn_ends_also_without_the_generation_configuration(
    load: Load, model_folder: Callable[[str], Path]
) -> None:
    from cohort.policies.template import turn_of

    tokenizer = load("gemma").renderer.tokenizer
    assert tokenizer.convert_ids_to_tokens(turn_of(tokenizer).end) == "<end_of_turn>"


def test_special_tokens_that_are_content_are_seen(load: Load) -> None:
    text = "<think>so</think><answer>4</answer>"
    seen = {
        "content": text,
        "all": f"{text}<|im_start|>",
        "none": "so4",
        ("<answer>", "</answer>"): "so<answer>4</answer>",
    }
    for which, expected in seen.items():
        policy = load("specialtags", special_tokens=which)
        assert policy.renderer.decode(policy.renderer.encode(f"{text}<|im_start|>")) == expected
    policy = load("specialtags")
    # One token each.
    assert len(policy.renderer.encode("<think></think>")) == 2
    assert policy.renderer.decode(policy.renderer.encode(f"{text}<|im_end|><|endoftext|>")) == text
    with pytest.raises(UsageError, match=r"special_tokens: '<thought>' is no special token of .*<\|im_end\|>"):
        load("specialtags", special_tokens=("<thought>",))


def test_a_thought_that_the_template_opens_is_content_too(load: Load, tmp_path: Path) -> None:
    from tests.model_folders import THINKING

    policy = load("specialtags")
    tokenizer = copy.deepcopy(policy.renderer.tokenizer)
    tokenizer.chat_template = THINKING
    again = CausalLM(policy.model, tokenizer)
    assert again.renderer.render("1").endswith("<think>\n")
    assert again.renderer.decode(again.renderer.encode("so</think>4")) == "so</think>4"


def test_text_is_not_tidied_up(load: Load) -> None:
    policy = load("cleanup")
    text = " x != y , a == b ; print ( 'hi' ) !"
    assert policy.renderer.decode(policy.renderer.encode(text)) == text


@pytest.mark.parametrize("name", ["llama2", "chat", "plain"])
def test_a_character_that_was_cut_off_does_not_take_those_before_it_along(load: Load, name: str) -> None:
    policy = load(name)
    ids = policy.renderer.encode("ok øß🎉")
    assert policy.renderer.decode(ids) == "".join(Pieces(policy.renderer.tokenizer)(ids)) == "ok øß🎉"
    assert CausalLM(policy.model, policy.renderer.tokenizer, special_tokens="none").renderer.decode(ids) == "ok øß🎉"
    assert policy.renderer.decode(ids[:-1]) == "ok øß\ufffd"
    # A token can be several bytes.
    assert {policy.renderer.decode(ids[:-cut]) for cut in (2, 3)} <= {"ok øß\ufffd", "ok øß", "ok ø\ufffd"}


def test_rows_of_the_embedding_without_a_token_have_no_text(load: Load) -> None:
    policy = load("chat")
    wide = CausalLM(copy.deepcopy(policy.model), policy.renderer.tokenizer)
    wide.model.resize_token_embeddings(len(policy.renderer.tokenizer) + 8)
    wide = CausalLM(wide.model, policy.renderer.tokenizer)
    beyond = len(policy.renderer.tokenizer) + 3
    assert wide.renderer.decode((*wide.renderer.encode("4"), beyond)) == "4"
    assert beyond in wide.renderer.special_ids
    assert Pieces(policy.renderer.tokenizer)([beyond]) == [""]


# what a model has no row for, and what is no text --------------------------------------------------------------------


def test_a_token_above_the_embedding_is_refused(load: Load) -> None:
    policy = load("smallvocab")
    token = policy.renderer.tokenizer.convert_tokens_to_ids("<tool_x>")
    found = rf"token <tool_x> \(id {token}\) .* ids 0 to {token - 1}"
    made = asked(policy, "use it")
    for attempt in (
        lambda: policy.renderer.prompt("use <tool_x> now"),
        lambda: policy.renderer.encode("<tool_x>"),
        lambda: policy.renderer.encode_completion(made, "a <tool_x>"),
    ):
        with pytest.raises(UsageError, match=found):
            attempt()
    assert policy.renderer.prompt("use it now")[1]


def test_half_a_surrogate_pair_is_refused(load: Load) -> None:
    for name in NAMES:
        for attempt in (load(name).renderer.prompt, load(name).renderer.encode):
            with pytest.raises(UsageError, match=r"half of a surrogate pair \(U\+D800, character \d+\)"):
                attempt("a\ud800b")


# whatever messages there are -----------------------------------------------------------------------------------------

# What the tokenizers of the tests were made of, so that they know it, with what formats trip over.
PARTS = (
    "a",
    "The answer is 4.",
    " ",
    "  ",
    "\n",
    "\n\n",
    "x != y ,",
    "</",
    "think",
    "<think>",
    "</answer>",
    "café",
    "你好",
    "😀",
    "2 + 2",
    "{{",
    "}}",
    "{%",
    "'",
    '"',
    "None",
)
TEXT = st.lists(st.sampled_from(PARTS), max_size=5).map("".join)
ANYTHING = st.recursive(
    st.none() | st.integers() | st.booleans() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "url"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PART = st.fixed_dictionaries({"type": st.just("text"), "text": TEXT})
CONTENT = TEXT | st.lists(PART, max_size=3) | ANYTHING
ROLE = st.sampled_from(["user", "assistant", "system", "tool", "critic", ""]) | ANYTHING
MESSAGE = st.fixed_dictionaries(
    {"role": ROLE, "content": CONTENT},
    optional={
        "name": ANYTHING,
        "tool_calls": st.none() | st.just([{"type": "function", "function": {"name": "f", "arguments": {}}}]),
    },
)
LIKELY = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXT}),
    min_size=1,
    max_size=4,
)
SURROGATES = st.sampled_from(["", "", "", "\ud800", "\udfff"])


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(source=LIKELY | st.lists(MESSAGE, max_size=4), completion=TEXT, system=st.none() | TEXT, broken=SURROGATES)
def test_messages_are_rendered_as_they_are_or_refused_with_a_reason(
    load: Load, name: str, source: list[dict[str, Any]], completion: str, system: str | None, broken: str
) -> None:
    policy = load(name)
    try:
        if not is_chat(source):
            return
        messages = messages_of(source)
        made = asked(policy, messages, system and system + broken)
        ids = policy.renderer.encode_completion(made, completion)
    except UsageError as error:
        assert str(error)
        return
    place = 0
    for message in messages:
        said = message["content"].strip()
        assert not message.get(CALLS[0]) or policy.renderer.has_template
        place = made.text.index(said, place) + len(said)
    assert not broken or not system or system + broken not in made.text
    whole = written(policy, (*made.tokens, *ids))
    # A tokenizer without a token for a character cannot write it, and a mark for a space begins a text.
    if name not in ("metaspace", "llama2"):
        assert whole == made.text + completion
        assert policy.renderer.decode(ids) == completion


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(prompt=TEXT, completion=TEXT)
def test_any_text_behind_any_other_stays_what_it_is(load: Load, name: str, prompt: str, completion: str) -> None:
    policy = load(name)
    # Behind nothing, a mark for a space is the beginning of a text.
    prompt = f"a{prompt}"
    if name == "metaspace":  # knows no other characters
        prompt, completion = (text.translate({ord(c): None for c in "{}%\"'N"}) for text in (prompt, completion))
    made = asked(policy, prompt)
    ids = policy.renderer.encode_completion(made, completion)
    assert written(policy, (*made.tokens, *ids)) == made.text + completion
    assert policy.renderer.decode(ids) == completion
    assert policy.renderer.decode(policy.renderer.encode(completion)) == completion
