"""What is said at the start of the text that a model gets, and of what ends its rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cohort.policies.renderer import TextRenderer
from cohort.types import Prompt
from cohort.types.policy import Renderer

# Characters of a prompt that are shown, half from its beginning and half from its end.
SHOWN = 400


def log_text(
    renderer: Renderer, prompts: Sequence[Prompt], log: Callable[[str], None], *, sampled: bool = True
) -> None:
    """Say how prompts are put, with the first as the model gets it, and, if rollouts are drawn, what ends them that the
    model itself does not name."""
    if not prompts or not isinstance(renderer, TextRenderer):
        return
    first = prompts[0]
    how = "through the chat template" if renderer.templated(first.source) else "as plain text"
    text = renderer.whole(first.tokens)
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2]} ... {text[-SHOWN // 2 :]}"
    log(f"the first prompt ({how}, {len(first.tokens)} tokens): {text!r}")
    going_on = sum(_goes_on(prompt) for prompt in prompts)
    if going_on:
        log(f"{going_on} of {len(prompts)} prompts end with the assistant's message, and the model goes on with it")
    unknown = getattr(renderer.tokenizer, "unk_token_id", None)
    lost = sum(unknown in prompt.tokens for prompt in prompts)
    if unknown is not None and lost:
        log(
            f"{lost} of {len(prompts)} prompts have characters that the tokenizer has no token for: the model does not see them"
        )
    if not renderer.stop_ids:
        log(
            "neither the model nor its tokenizer names a token that ends a text: completions are trained without an end, and "
            "rollouts end at max_new_tokens, or with what stop and stop_token_ids name"
        )
    end = renderer.turn.end
    if sampled and end is not None and end not in renderer.ends:
        named = renderer.tokenizer.convert_ids_to_tokens(end)
        log(f"rollouts end with {named}, too: the chat template ends a turn with it, though the model does not name it")


def _goes_on(prompt: Prompt) -> bool:
    source = prompt.source
    return not isinstance(source, str) and source[-1]["role"] == "assistant" and bool(source[-1]["content"].strip())
