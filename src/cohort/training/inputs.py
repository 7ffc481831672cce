"""What a run computes with, as checksums: by them its continuation knows data, functions and weights again."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort import registry
from cohort.environments.spec import parse, parted
from cohort.errors import UsageError
from cohort.files import digest
from cohort.methods import Method, MethodError
from cohort.policies.agents import members_of
from cohort.rewards.judges.methods import names_prompt
from cohort.rewards.judges.prompts import parts_of
from cohort.training.build import Setup
from cohort.training.config import TrainConfig
from cohort.types import Prompt
from cohort.types.declare import State
from cohort.types.policy import Policy

# Bytes that a prompt, or its row, is known by.
SHORT = 8
# Files of a model folder, beside its weights, on which it depends what the model computes, reads and writes.
BESIDE = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "*.py",
)


def inputs_of(setup: Setup) -> dict[str, Any]:
    """For a checkpoint: `prompts` and `rows` [P, 8] uint8, what each prompt and its row hold; `eval_data` and `pairs`, texts;
    `files`, `weights` and `model`, name -> checksum, of functions of the user's, and of the initial model's weights and of
    what stands beside them."""
    collector = setup.collector
    store = setup.pairs if setup.offline is None else setup.offline
    pairs = (
        ((p.prompt.id, [(c.tokens, c.label) for c in p.completions]) for p in store.preferences.values())
        if store
        else ()
    )
    return {
        "prompts": _stacked(bytes.fromhex(prompt.id)[:SHORT] for prompt in setup.prompts),
        "rows": _stacked(_row(prompt) for prompt in setup.prompts),
        "eval_data": _digest((prompt.id, _row(prompt).hex()) for prompt in setup.eval_prompts),
        "pairs": _digest(pairs),
        "files": functions_of(
            setup.method, setup.config.method, collector.grader.scorer.specs, answering(setup.config)
        ),
        "weights": _by_agent(setup.policy, _weights),
        "model": _by_agent(setup.policy, lambda policy: _settings(Path(policy.name))),
    }


def _by_agent(policy: Policy, of: Callable[[Policy], dict[str, str]]) -> dict[str, str]:
    """What is known of a policy, or of several, by names that say whose it is."""
    return {
        f"{agent}: {name}" if agent else name: value
        for agent, each in members_of(policy).items()
        for name, value in of(each).items()
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was, a phrase each."""
    out = _of_prompts(then, now)
    if then["eval_data"] != now["eval_data"]:
        out.append("eval_data holds other problems")
    if then["pairs"] != now["pairs"]:
        out.append("pairs holds other completions")
    said = (
        ("files", "was edited"),
        ("weights", "(the model's weights) has other contents"),
        ("model", "of the model was edited"),
    )
    for key, what in said:
        if key not in then:  # of a checkpoint from before there was any
            continue
        for name in sorted({*then[key], *now[key]}):
            if then[key].get(name) != now[key].get(name):
                out.append(
                    f"{name} {what if name in then[key] and name in now[key] else 'is read by one of the two only'}"
                )
    return out


def _of_prompts(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    before, after = then["prompts"], now["prompts"]
    if torch.equal(before, after):
        other = (
            []
            if torch.equal(then["rows"], now["rows"])
            else (then["rows"] != now["rows"]).any(1).nonzero()[:, 0].tolist()
        )
        return (
            [f"data: the columns of {len(other)} prompts are others (the first: prompt {other[0] + 1})"]
            if other
            else []
        )
    rows = places(before, after)
    new = (rows < 0).nonzero()[:, 0].tolist()
    gone = len(before) - len(after) + len(new)
    if not new and not gone:
        return ["data: the prompts stand in another order"]
    said = [f"{len(new)} are new (the first: prompt {new[0] + 1})"] if new else []
    said += [f"{gone} are gone"] if gone else []
    return [f"data: of {len(after)} prompts (there were {len(before)}) {' and '.join(said)}"]


def places(before: Tensor, after: Tensor) -> Tensor:
    """For each prompt of `after` its row in `before`, [P] int64; -1 for a new one."""
    known = {bytes(row): i for i, row in enumerate(before.tolist())}
    return torch.tensor([known.get(bytes(row), -1) for row in after.tolist()], dtype=torch.int64)


def carried(
    method: Method, states: Mapping[str, State], fresh: Mapping[str, State], rows: Tensor, size: int
) -> tuple[dict[str, State], list[str]]:
    """A method's states for other prompts: kept by prompt where they hold a value a prompt, else begun anew.

    Args:
        states: as they were, for `size` prompts; fresh: as they begin, for the new ones.
        rows: for each prompt the row that it had (see `places`).

    Returns:
        the states, and which were begun anew.
    """
    out, anew = {}, []
    for key, start in fresh.items():
        state = states.get(key)
        moved = state
        if state is not None and _recalls(state):
            moved = None
        elif state is not None and key in method.by_prompt:
            moved = _moved(state, start, rows, size)
        out[key] = start if moved is None else moved
        anew += [key] if moved is None and state is not None else []
    return out, anew


def _moved(state: State, fresh: State, rows: Tensor, size: int) -> State | None:
    """The state with its values by prompt moved to the prompts' new rows; None if something in it is none of that."""
    new_row = {str(old): str(new) for new, old in enumerate(rows.tolist()) if old >= 0}
    out: State = {}
    for name, value in state.items():
        start = fresh.get(name)
        if (
            isinstance(value, Tensor)
            and isinstance(start, Tensor)
            and value.shape[:1] == (size,)
            and len(start) == len(rows)
        ):
            out[name] = torch.where((rows >= 0).view(-1, *[1] * (value.dim() - 1)), value[rows.clamp(min=0)], start)
        elif isinstance(value, dict) and start == {} and all(str(key).isdecimal() for key in value):
            out[name] = {new_row[key]: each for key, each in value.items() if key in new_row}
        else:
            return None
    return out


def _recalls(state: Any) -> bool:
    """True if rollouts are kept in it, which know their prompts by row."""
    if isinstance(state, dict):
        return "row" in state or any(map(_recalls, state.values()))
    return isinstance(state, (list, tuple)) and any(map(_recalls, state))


def _stacked(digests: Iterable[bytes]) -> Tensor:
    whole = b"".join(digests)
    return (
        torch.frombuffer(bytearray(whole), dtype=torch.uint8).view(-1, SHORT) if whole else torch.zeros(0, SHORT).byte()
    )


def _row(prompt: Prompt) -> bytes:
    # What is no JSON comes from Python, and its text may hold an address.
    text = json.dumps([dict(prompt.row), prompt.tokens], default=lambda value: type(value).__name__)
    return hashlib.sha256(text.encode()).digest()[:SHORT]


def _digest(items: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(list(items)).encode()).hexdigest()


def _weights(policy: Policy) -> dict[str, str]:
    folder = Path(policy.name)
    if not folder.is_dir():
        revision = getattr(getattr(policy.model, "config", None), "_commit_hash", None)
        # A revision of the hub says it all; a model that was given from Python has none.
        return {policy.name: revision} if revision else _of_tensors(policy)
    files = sorted(folder.glob("*.safetensors"))
    with ThreadPoolExecutor() as pool:
        return {path.name: text for path, text in zip(files, pool.map(digest, files), strict=True)}


def _settings(folder: Path) -> dict[str, str]:
    """Checksums of what says how a model folder computes and reads and writes text; of JSON what it holds, so that it may be
    written anew."""
    found: dict[str, str] = {}
    for path in sorted(path for pattern in BESIDE for path in folder.glob(pattern)) if folder.is_dir() else ():
        try:
            held = json.loads(path.read_bytes())
            found[path.name] = _digest(sorted((str(k), v) for k, v in held.items() if k != "transformers_version"))
        except (ValueError, AttributeError, RecursionError):
            found[path.name] = digest(path)
    return found


def _of_tensors(policy: Policy) -> dict[str, str]:
    whole = hashlib.sha256()
    for name, tensor in policy.model.state_dict().items():
        if "lora_" not in name:
            whole.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {"the model given": whole.hexdigest()}


def answering(config: TrainConfig) -> list[Any]:
    """What answers the policy: environments and tools, as they were given, those of a text without its options."""
    asked = config.episodes.environment
    whole = [] if asked is None else [parse(asked)]
    each_own = [each for spec in whole for each in spec.several.values()] or whole
    given = [*(spec.text if spec.given is None else spec.given for spec in each_own), *config.episodes.tools]
    return [parted(each)[0] if isinstance(each, str) else each for each in given if each is not None]


def functions_of(method: Method, expression: str, specs: Sequence[Any], others: Sequence[Any] = ()) -> dict[str, str]:
    """Checksums of the user's Python: files with what they import from beside them, and functions given from Python.

    Args:
        others: further functions and classes, and texts that name them.
    """
    named = [spec.text for spec in specs] + [str(value) for *_, value in method.functions]
    named += [each for each in others if isinstance(each, str)]
    with contextlib.suppress(MethodError):  # the name of a method that was made in Python
        named += [part.name for part in registry.parts(expression)]
    files: dict[str, str] = {}
    for text in named:
        if ".py:" in text:
            path = Path(text.rsplit(":", 1)[0]).expanduser().resolve()
            _add(path, files, (path.parent, Path.cwd()))
    for *_, value in method.functions:
        if names_prompt(value) and (prompt := parts_of(value)[0].path) is not None:
            files[str(prompt)] = digest(prompt)
    for spec in specs:
        if spec.kind is not None and spec.kind.files is not None:
            files |= {str(path): digest(path) for path in spec.kind.files(spec.argument)}
    for function in [*(spec.function for spec in specs), *(value for *_, value in method.functions), *others]:
        if callable(function):
            try:
                source = inspect.getsource(function)
            except (OSError, TypeError):
                continue
            files[f"the function {getattr(function, '__name__', 'given')}"] = _digest([source])
    return files


def _add(path: Path, files: dict[str, str], roots: Sequence[Path]) -> None:
    """Take a file in, and what it imports: from the folders that Python looks in for it (`roots`), or relative to it."""
    if str(path) in files or not path.is_file():
        return
    files[str(path)] = digest(path)
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        level = node.level if isinstance(node, ast.ImportFrom) else 0
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{a.name}" if node.module else a.name for a in node.names)]
        for name in filter(None, names):
            for root in path.parents[level - 1 : level] if level else roots:
                parts = name.split(".")
                # A package runs its own file before the modules in it.
                for beside in (root.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)):
                    for found in (beside.with_suffix(".py"), beside / "__init__.py"):
                        _add(found, files, roots)


def refusal(folder: Path, changed: Sequence[str]) -> UsageError:
    """The error that says what is not as it was when a run began."""
    return UsageError(
        f"{folder} was computed with other inputs: {'; '.join(changed)}. Put back what was there, begin anew in another folder "
        "(--out), or go on with the changes: --resume --accept-changes"
    )
