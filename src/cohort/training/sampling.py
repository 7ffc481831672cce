"""From a configuration to how tokens are drawn, and what ends a rollout."""

from __future__ import annotations

from cohort.data.prompts import typed
from cohort.engine.base import Sampling
from cohort.errors import UsageError
from cohort.policies.renderer import TextRenderer
from cohort.training.config import TrainConfig


def make_sampling(config: TrainConfig, renderer: TextRenderer, vocabulary: int) -> Sampling:
    """How the run draws tokens.

    Args:
        vocabulary: token ids that can be drawn are 0 to this - 1.

    Raises:
        UsageError: an option names tokens that the model does not have, or cannot be kept.
    """
    stops, ends = stops_of(config, renderer)
    known = f"the model has token ids 0 to {vocabulary - 1}"
    for token in config.sampling.stop_token_ids:
        if not 0 <= token < vocabulary:
            raise UsageError(f"stop_token_ids: there is no token {token}; {known}")
    bias: dict[int, float] = {}
    for key, value in config.sampling.logit_bias.items():
        ids = (key,) if isinstance(key, int) else _token_ids(renderer, key)
        if len(ids) != 1:
            raise UsageError(
                f"logit_bias: {key!r} is {len(ids)} tokens ({', '.join(map(str, ids))}): give the ids of those to change"
            )
        if not 0 <= ids[0] < vocabulary:
            raise UsageError(f"logit_bias: there is no token {ids[0]}; {known}")
        bias[ids[0]] = bias.get(ids[0], 0.0) + value
    stop_ids = renderer.stop_ids | ends if ends else None
    return Sampling(
        config.sampling.temperature,
        config.sampling.top_p,
        config.sampling.top_k,
        config.sampling.min_p,
        stop_ids,
        config.sampling.min_new_tokens,
        stops,
        bias,
    )


def stops_of(config: TrainConfig, renderer: TextRenderer) -> tuple[tuple[str, ...], frozenset[int]]:
    """(texts, token ids) that end a rollout in addition to the policy's own stop tokens.

    Raises:
        UsageError: a text that would end everything, or nothing: special tokens have no text to look for in, but one alone
            is a token that ends a rollout.
    """
    texts, ends = [], set(config.sampling.stop_token_ids)
    for text in map(typed, config.sampling.stop):
        if not text:
            raise UsageError("stop: an empty text would end every rollout at its first token; leave it out")
        ids = _token_ids(renderer, text, "stop")
        hidden = [token for token in ids if token in renderer.special_ids]
        single = renderer.only(text)
        if single is not None:
            ends.add(single)
        elif hidden:
            raise UsageError(
                f"stop: {text!r} has the special token {renderer.tokenizer.convert_ids_to_tokens(hidden[0])}, which is no part "
                "of the text of a rollout: name it alone, or see the config key special_tokens"
            )
        else:
            texts.append(text)
    return tuple(texts), frozenset(ends)


def _token_ids(renderer: TextRenderer, text: str, key: str = "logit_bias") -> tuple[int, ...]:
    try:
        return renderer.encode(text)
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from error
