"""The tokens of a rollout with all that is known of each, and which axis of the method made it so."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cohort import registry
from cohort.analysis.columns import token_lists
from cohort.analysis.episodes import messages_of, turns_of
from cohort.analysis.files import printable
from cohort.analysis.store import Run
from cohort.errors import UsageError
from cohort.methods import Method, Stage

# Columns of lists that are not numbers.
NAMES = {"tokens": "id", "pieces": "piece"}
# What only a token has that the policy drew.
DRAWN = ("version", "age")
View = dict[str, Any]
Row = Mapping[str, Any]


def view(run: Run, step: int, index: int) -> View:
    """A rollout with the numbers of its tokens, as plain values for JSON; what is not known or not finite is None.

    Args:
        index: of the rollout in its step, from 0.

    Returns:
        run, step, index, method (as the configuration names it), note (what is missing, a sentence or "");
        rollout: the columns of docs/metrics.md that have a value a rollout, and `components`, the rewards by name;
        group: id, size (rollouts that have a reward), rows, correct, and mean, std, low, high of the shaped rewards of those
        rollouts (of the rewards where no shaped ones are stored);
        opening: the messages that an environment showed first, where these are not the prompt;
        turns: what was said and answered, see `cohort.analysis.episodes.turns_of`;
        tokens: for each its index, id, piece and the numbers that the columns of lists have for it, and two made of
        these: `reference`, logp - ref_logp, and `mismatch`, old_logp - sampler_logp.

    Raises:
        UsageError: no such step or rollout, or a file that cannot be read.
    """
    table = run.rollouts(step)
    if table is None:
        raise UsageError(_no_step(run, step))
    if not 0 <= index < table.num_rows:
        raise UsageError(f"{run.name}, step {step}: there is no rollout {index}; it has 0 to {table.num_rows - 1}")
    row = table.slice(index, 1).to_pylist()[0]
    lists = {*token_lists(table), "turns"}
    rollout = {name: _plain(value) for name, value in row.items() if name not in lists and not _component(name)}
    rollout["components"] = {_component(name): _plain(value) for name, value in row.items() if _component(name)}
    columns = {name: row[name] for name in token_lists(table) if row[name] is not None}
    if "pieces" not in columns and (texts := _texts(run, columns.get("tokens"))) is not None:
        columns["pieces"] = texts
    tokens = [dict(zip(columns, entry, strict=True)) for entry in zip(*columns.values(), strict=True)]
    return {
        "run": run.name,
        "step": step,
        "index": index,
        "method": run.config.get("method"),
        "note": _note(columns, rollout),
        "rollout": rollout,
        "group": _group(table, rollout.get("group")),
        "opening": messages_of(row.get("opening")),
        "turns": turns_of(row.get("turns")),
        "tokens": [_token(place, token) for place, token in enumerate(tokens)],
    }


def _no_step(run: Run, step: int) -> str:
    found = next((text for text in reversed(run.problems) if f"step-{step:06d}.parquet" in text), None)
    if found is not None:
        return found
    steps = run.steps()
    known = f"the run has those of {len(steps)} steps, {steps[0]} to {steps[-1]}" if steps else "the run has none"
    return f"{run.name}: no rollouts of step {step} are stored; {known}"


def _component(name: str) -> str:
    """The reward that a column holds, or ""."""
    return name.removeprefix("reward/") if name.startswith("reward/") else ""


def _texts(run: Run, ids: Sequence[Any] | None) -> list[str] | None:
    """The texts of tokens, by the run's own tokenizer."""
    if not ids or any(token is None for token in ids):
        return None
    # It needs transformers, which takes seconds to load.
    from cohort.analysis.tokenizers import pieces

    return pieces(run, ids)


def _note(columns: Mapping[str, Any], rollout: Row) -> str:
    if not columns:
        return "The run stored nothing of single tokens here (see record and record_limit_mb)."
    said = [] if "pieces" in columns else ["the texts of its tokens"]
    if rollout.get("trained") and "policy_gradient" not in columns:
        said.append("what the update made of " + ("them" if said else "its tokens"))
    elif not columns.keys() - {"tokens", "pieces", "mask", "sampler_logp", *DRAWN}:
        said.append("the entropies of " + ("them" if said else "its tokens"))
    return f"The run did not store, of this rollout, {' and '.join(said)} (see record)." if said else ""


def _token(place: int, token: Row) -> dict[str, Any]:
    out = {"index": place, **{NAMES.get(name, name): _plain(value) for name, value in token.items()}}
    out.setdefault("piece", f"<{out.get('id')}>")
    if out.get("mask") == 0:
        # No weights drew it.
        out = {name: value for name, value in out.items() if name not in DRAWN}
    for name, (a, b) in {"reference": ("logp", "ref_logp"), "mismatch": ("old_logp", "sampler_logp")}.items():
        # Before rounding, which would be all that is left of a small difference.
        if out.get(a) is not None and out.get(b) is not None and out.get("mask") != 0:
            out[name] = _plain(float(token[a]) - float(token[b]))
    return out


def _group(table: pa.Table, label: Any) -> dict[str, Any]:
    if "group" not in table.column_names or label is None:
        return {}
    names = [n for n in ("reward", "shaped_reward", "accuracy") if n in table.column_names]
    rows = [i for i, group in enumerate(table["group"].to_pylist()) if group == label]
    part = table.select(names).take(rows).to_pydict()
    rewards = part.get("reward", [])
    shaped = part.get("shaped_reward", [])
    # The advantage is taken from shaped rewards, of the rollouts that no filter removed before.
    used = [value for value in shaped if value is not None] or [value for value in rewards if value is not None]
    mean = sum(used) / len(used) if used else math.nan
    return {
        "id": label,
        "size": sum(value is not None for value in rewards),
        "rows": rows,
        "correct": sum(value > 0 for value in part.get("accuracy", []) if value is not None),
        "mean": _plain(mean),
        "std": _plain(math.sqrt(sum((value - mean) ** 2 for value in used) / len(used)) if used else math.nan),
        "low": _plain(min(used, default=math.nan)),
        "high": _plain(max(used, default=math.nan)),
    }


def _plain(value: Any) -> Any:
    """Floats to the seven digits that a float32 holds; None where they are not finite."""
    if not isinstance(value, float):
        return printable(value) if isinstance(value, str) else value
    return float(f"{value:.7g}") if math.isfinite(value) else None


# colours -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Colour:
    """How a number of tokens is shown: a scale that is "sequential", "diverging" (from `center`, and at least so far to
    each side, so that rounding does not look like a difference) or "binary"."""

    label: str
    unit: str
    kind: str
    about: str
    center: float = 0.0
    least: float = 1e-9


COLOURS: Mapping[str, _Colour] = {
    "advantage": _Colour("advantage", "", "diverging", "after credit: what the surrogate multiplies the ratio with"),
    "base_advantage": _Colour("advantage before credit", "", "diverging", "as the advantage axis gave it"),
    "policy_gradient": _Colour(
        "part of the gradient",
        "loss / nat",
        "diverging",
        "derivative of the policy loss by the log-probability; below 0 the update makes the token likelier",
    ),
    "logp": _Colour("log-probability", "nats", "sequential", "under the policy, at the token's last update"),
    "old_logp": _Colour("log-probability before", "nats", "sequential", "under the policy before the step's updates"),
    "sampler_logp": _Colour("log-probability, sampler", "nats", "sequential", "under the engine that drew it"),
    "entropy": _Colour("entropy", "nats", "sequential", "of the distribution at the token, at its last update"),
    "old_entropy": _Colour("entropy when drawn", "nats", "sequential", "of the distribution that it was drawn from"),
    "ratio": _Colour("importance ratio", "", "diverging", "as the ratio axis has it, at the last update", 1.0, 0.01),
    "clipped": _Colour("clipped", "", "binary", "1: it has an advantage, but no gradient"),
    "mask": _Colour("mask", "", "binary", "1: the policy chose it; 0: something else wrote it"),
    "weight": _Colour("aggregation weight", "", "sequential", "what its loss is multiplied with in the sum"),
    "age": _Colour("age", "updates", "sequential", "from the weights that drew it to those that the step began with"),
    "ref_logp": _Colour("log-probability, reference", "nats", "sequential", "under the reference policy"),
    "reference": _Colour(
        "difference to the reference",
        "nats",
        "diverging",
        "log-probability less that under the reference policy",
        least=0.01,
    ),
    "mismatch": _Colour(
        "sampler-trainer mismatch",
        "nats",
        "diverging",
        "log-probability of the trainer less that of the engine; of a token of age 0 all but rounding is a bug",
        least=1e-3,
    ),
}


def colourings(found: View) -> list[dict[str, Any]]:
    """What the tokens of a `view` can be coloured by, those that have a value: name (the key in a token), label, unit,
    about, kind of scale, and its domain: low, high, and for diverging scales the center, in the middle.

    Of diverging scales the domain holds 98 % of the tokens, so that one outlier does not make all others pale; colours
    beyond it are those of its end.
    """
    out = []
    for name, colour in COLOURS.items():
        values = sorted(token[name] for token in found["tokens"] if token.get(name) is not None)
        if values:
            low, high = _domain(colour, values)
            center = colour.center if colour.kind == "diverging" else None
            out.append(
                {
                    "name": name,
                    "label": colour.label,
                    "unit": colour.unit,
                    "about": colour.about,
                    "kind": colour.kind,
                    "low": _plain(low),
                    "high": _plain(high),
                    "center": center,
                }
            )
    return out


def _domain(colour: _Colour, values: Sequence[float]) -> tuple[float, float]:
    """Of sorted values."""
    if colour.kind == "binary":
        return 0.0, 1.0
    if colour.kind == "sequential":
        # Log-probabilities end at certainty, entropies and weights begin at none.
        return (values[0], 0.0) if values[0] < 0 else (0.0, values[-1])
    away = sorted(abs(value - colour.center) for value in values)
    most = max(away[math.ceil(0.98 * len(away)) - 1] or away[-1], colour.least)
    return colour.center - most, colour.center + most


# words -------------------------------------------------------------------------------------------------------------


def axes(run: Run) -> list[dict[str, Any]]:
    """The functions of the run's method in the order of the step, defaults included: axis, function, hyperparameters,
    source (the method that put it there, "" for GRPO's default), paper, idea, and about, its documentation's first line.

    Empty if the method cannot be found by its name, as one that was made in Python.
    """
    method = _method(run)
    return [] if method is None else [_axis(axis, stage) for axis, stage in method.stages()]


def _axis(axis: str, stage: Stage) -> dict[str, Any]:
    about = (inspect.getdoc(stage.fn) or "").split("\n\n")[0].replace("\n", " ")
    return {
        "axis": axis,
        "function": stage.name,
        "hyperparameters": {k: _short(v) for k, v in stage.all_hyper.items()},
        "source": stage.source,
        "paper": "",
        "idea": "",
        **_recipe(stage),
        "about": about,
    }


def _recipe(stage: Stage) -> dict[str, str]:
    """Paper and idea of the method that filled an axis; nothing for defaults, and for functions of unknown origin."""
    try:
        recipe = registry.recipe(registry.parts(stage.source)[0].name)
    except UsageError:
        return {}
    return {"paper": recipe.paper, "idea": recipe.idea}


def _method(run: Run) -> Method | None:
    name = run.config.get("method")
    if not isinstance(name, str) or ".py" in name:
        return None  # a file's code is not run to look at a run, which may be a stranger's
    try:
        return registry.method(name)
    except UsageError:
        return None


def explain(run: Run, row: View, index: int) -> list[str]:
    """Why a token has its numbers: a line for each axis that acted on them, in the order of the step.

    Args:
        row: the rollout, as `view` gives it.
        index: of the token.

    Raises:
        UsageError: no such token.
    """
    tokens = row["tokens"]
    if not 0 <= index < len(tokens):
        raise UsageError(f"there is no token {index}; the rollout has {len(tokens)} with numbers, counted from 0")
    return list(_lines(_Why(run, row, tokens[index])))


class _Why:
    """A token, its rollout, and how the axes of the method are called in a line about them."""

    def __init__(self, run: Run, row: View, token: Row) -> None:
        self.rollout, self.group, self.tokens, self.token = row["rollout"], row["group"], row["tokens"], token
        self.name = row["method"]
        self.method = _method(run)

    def stages(self, axis: str) -> list[Stage]:
        return [] if self.method is None else [stage for each, stage in self.method.stages() if each == axis]

    def axis(self, axis: str) -> str:
        """An axis with who fills it: "advantage [grpo, arXiv:2402.03300: zscore(eps=1e-06, ddof=0)]"."""
        filled = "; ".join(f"{_source(stage)}: {_call(stage)}" for stage in self.stages(axis))
        return f"{axis} [{filled}]" if filled else axis


def _source(stage: Stage) -> str:
    paper = _recipe(stage).get("paper")
    return (stage.source or "default") + (f", {paper}" if paper else "")


def _call(stage: Stage) -> str:
    hyper = ", ".join(f"{name}={_short(value)}" for name, value in stage.all_hyper.items() if value is not None)
    return f"{stage.name}({hyper})" if hyper else stage.name


def _lines(why: _Why) -> Iterator[str]:
    if why.method is None:
        yield (
            f"The method '{why.name}' cannot be found by its name (it was made in Python, or in a file that is not here): "
            "axes are named without what fills them."
        )
    if why.token.get("mask") == 0:
        yield "mask: not chosen by the policy (a prefix, an environment or a tool wrote it), so it has no part in the loss"
        return
    yield from _reward(why)
    if not why.rollout.get("trained", True):
        reason = why.rollout.get("kept")
        yield f"{why.axis('filter')}: the rollout was not trained on" + (f" ({reason})" if reason else "")
    elif why.token.get("policy_gradient") is None:
        yield "what the update made of this rollout's tokens is not stored"
    else:
        for part in (_advantage, _ratio, _loss, _weight, _push, _regularizers):
            yield from part(why)
    if (gap := why.token.get("mismatch")) is not None:
        if age := why.token.get("age"):
            yield f"drawn {age} update(s) before the weights of this step; since then it moved by {_number(gap)} nats"
        else:
            yield f"sampler-trainer mismatch {_number(gap)} nats" + (", rounding" if 0 < abs(gap) < 1e-4 else "")


def _reward(why: _Why) -> Iterator[str]:
    rollout = why.rollout
    if rollout.get("reward") is None:
        return
    parts = [
        f"{name} {_number(value)}" + _before(value, rollout.get(f"raw/{name}"))
        for name, value in rollout["components"].items()
        if value is not None
    ]
    yield f"reward {_number(rollout['reward'])}" + (f" ({', '.join(parts)})" if parts else "")
    shaped = rollout.get("shaped_reward")
    if shaped is not None and (why.stages("shaping") or shaped != rollout["reward"]):
        yield f"{why.axis('shaping')}: {_number(rollout['reward'])} -> {_number(shaped)}"


def _before(value: float, raw: float | None) -> str:
    """What a component was before gates and ranges, where that is something else."""
    return "" if raw is None or raw == value else f" of {_number(raw)}"


def _advantage(why: _Why) -> Iterator[str]:
    final, base, group = why.token.get("advantage"), why.token.get("base_advantage"), why.group
    given = final if base is None else base
    if given is None:
        return
    line = f"{why.axis('advantage')}: {_number(given, sign=True)}"
    if group.get("mean") is not None:
        line += (
            f"; the group's {group['size']} rewards have mean {_number(group['mean'])}, spread {_number(group['std'])}"
        )
    yield line
    if base is None or final is None or (not why.stages("credit") and final == base):
        return
    line = f"{why.axis('credit')}: {_number(base, sign=True)} -> {_number(final, sign=True)}"
    yield line + (f" (x {_number(final / base)})" if base else "")


def _ratio(why: _Why) -> Iterator[str]:
    if (ratio := why.token.get("ratio")) is not None:
        line = f"{why.axis('ratio')}: {_number(ratio)}"
        before, now = why.token.get("old_logp"), why.token.get("logp")
        if before is not None and now is not None:
            line += f"; log-probability {_number(before)} before, {_number(now)} at the last update"
        yield line


def _loss(why: _Why) -> Iterator[str]:
    token = why.token
    axis = "objective" if why.stages("objective") else "surrogate"
    if token.get("weight") == 0:
        yield f"{why.axis(axis)}: the loss is not taken over this token"
    elif token.get("clipped"):
        yield f"{why.axis(axis)}: clipped, so no gradient in spite of its advantage"
    elif token["policy_gradient"] == 0:
        yield f"{why.axis(axis)}: no gradient" + (", as it has no advantage" if token.get("advantage") == 0 else "")
    elif (weight := token.get("weight")) is not None:
        yield f"{why.axis(axis)}: derivative by the log-probability {_number(token['policy_gradient'] / weight)}"
    else:
        yield f"{why.axis(axis)}: derivative by the log-probability {_number(token['policy_gradient'])}"


def _weight(why: _Why) -> Iterator[str]:
    if (weight := why.token.get("weight")) is not None:
        yield f"{why.axis('aggregation')}: weight {_number(weight)}"


def _push(why: _Why) -> Iterator[str]:
    push = why.token["policy_gradient"]
    if push == 0:
        yield "so the policy loss did not move this token by itself"
        return
    total = sum(abs(token.get("policy_gradient") or 0.0) for token in why.tokens)
    yield (
        f"so the update pushed this token's log-probability {'up' if push < 0 else 'down'} (policy gradient "
        f"{_number(push)}, {abs(push) / total:.1%} of the rollout's)"
    )


def _regularizers(why: _Why) -> Iterator[str]:
    if not why.stages("regularizer"):
        return
    line = f"{why.axis('regularizer')}: a term of its own, which the policy gradient does not hold"
    gap = why.token.get("reference")
    if gap is not None:
        line += f"; the token is {_number(abs(gap))} nats {'likelier' if gap > 0 else 'less likely'} than under the reference"
    yield line


def _number(value: float, *, sign: bool = False) -> str:
    """With three digits."""
    return f"{value:{'+' if sign else ''}.3g}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
