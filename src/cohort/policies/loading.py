"""Models and tokenizers from folders and the hub, refused where they are not what their configuration says."""

from __future__ import annotations

import copy
import json
import math
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from cohort.errors import UsageError, out_of_memory, shown
from cohort.files import save_new
from cohort.policies.roles import has_adapter
from cohort.policies.shards import below, is_sharded, read, stored
from cohort.quiet import quiet_libraries

# Names of tensors that a message gives.
NAMED = 4
# Types of weights as safetensors calls them.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_model(name: str, *, dtype: torch.dtype | str, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """(model, tokenizer) of a model folder or hub id, safetensors only.

    Args:
        dtype: "auto" for that of the stored weights.

    Raises:
        UsageError: no such model, no tokenizer, weights in another format than safetensors or quantised, or weights that
            are missing, of another shape, or left over.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    quiet_libraries()
    check_name(name)
    # Files of a model can be broken in any way, and code that comes with it can raise anything.
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:
        nowhere = "" if Path(name).is_dir() else "there is no such folder, and as a name of the hub "
        raise UsageError(f"model '{name}': {nowhere}its configuration cannot be read: {reason(error)}") from error
    _check_config(config, name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise UsageError(f"model '{name}': its tokenizer cannot be loaded: {reason(error)}") from error
    if len(tokenizer.get_vocab()) <= len(tokenizer.added_tokens_encoder):
        # What transformers makes where only the settings of a tokenizer are there.
        raise UsageError(
            f"model '{name}': its tokenizer has no vocabulary: put the tokenizer.json (or tokenizer.model) that belongs to the "
            "model into its folder"
        )
    if is_sharded(Path(name)):
        return _load_sharded(name, config, dtype=dtype, trust_remote_code=trust_remote_code), tokenizer
    before = logging.get_verbosity()
    try:
        # Its own report of what is missing is a table of many lines.
        logging.set_verbosity_error()
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"model '{name}' cannot be loaded: {reason(error)}") from error
    finally:
        logging.set_verbosity(before)
    _check_weights(name, found)
    _check_kinds(name, {key for key, value in model.named_parameters() if value.is_floating_point()})
    return model, tokenizer


def _load_sharded(name: str, config: Any, *, dtype: torch.dtype | str, trust_remote_code: bool) -> Any:
    """The model of a checkpoint that several processes wrote.

    Raises:
        UsageError: its weights are not those that its configuration asks for.
    """
    from transformers import AutoModelForCausalLM

    kind = dtype if isinstance(dtype, torch.dtype) else stored_dtype(name) or torch.float32
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=kind, trust_remote_code=trust_remote_code)
        read(Path(name), below("policy", stored(model)))
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"model '{name}' cannot be loaded: {reason(error)}") from error
    return model.eval()


def stored_dtype(name: str) -> torch.dtype | None:
    """The type that a folder's weights are stored in: that of most numbers; None of a model on the hub."""
    from safetensors import safe_open

    numbers: dict[torch.dtype, int] = {}
    sharded = is_sharded(Path(name).expanduser())
    for path in sorted(Path(name).expanduser().glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                piece = file.get_slice(key)
                kind = FLOATS.get(piece.get_dtype())
                # Beside the policy's, a checkpoint of several processes holds the optimizer's.
                if kind is not None and not (sharded and not key.startswith("policy.")):
                    numbers[kind] = numbers.get(kind, 0) + math.prod(piece.get_shape())
    return max(numbers, key=lambda kind: numbers[kind]) if numbers else None


def save_as(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a transformers model with its weights in another type; the model stays as it is."""
    cast: dict[int, torch.Tensor] = {}
    # Tied weights are one tensor, and stay one.
    state = {
        name: cast.setdefault(value.data_ptr(), value.to(dtype)) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    model.save_pretrained(folder, state_dict=state)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    key = "dtype" if "dtype" in config else "torch_dtype"
    path.write_text(
        json.dumps({**config, key: str(dtype).removeprefix("torch.")}, indent=2, sort_keys=True) + "\n",
        encoding="utf-8",
    )


def save_settings(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write what stands beside the weights in a model folder (or an adapter's)."""
    quiet_libraries()
    folder.mkdir(parents=True, exist_ok=True)
    if has_adapter(model):
        settings = copy.copy(model.peft_config["default"])
        settings.inference_mode = True
        settings.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def check_name(name: str) -> None:
    """A model folder that is whole, or what can be a name of the hub.

    Raises:
        UsageError: it is neither, or a folder lacks something.
    """
    folder = Path(name)
    try:
        there, beside = folder.is_dir(), folder.parent.is_dir()
    except OSError as error:
        raise UsageError(f"model {shown(name)}: no such folder: {error.strerror}") from error
    if there:
        _check_folder(folder)
    elif folder.is_file():
        raise UsageError(f"model '{name}' is a file: name the folder that it stands in")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or ("/" in name and beside):
        raise UsageError(f"model {shown(name)}: no such folder")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"model {shown(name)}: no such folder, and no hub id ('organisation/name') either")


def _check_generation(folder: Path) -> None:
    """What names the tokens that end a text can be read: transformers leaves out what cannot, and no rollout would end.

    Raises:
        UsageError: it cannot.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return
    try:
        ends = json.loads(path.read_bytes()).get("eos_token_id")
    except (ValueError, AttributeError, RecursionError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}; put back the model's own, or remove it") from error
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and type(end) is not int:
            raise UsageError(f"{path}: eos_token_id should be a token id or a list of them, and is {shown(ends)}")


def _check_config(config: Any, name: str) -> None:
    how = getattr(config, "quantization_config", None)
    if how is not None:
        kind = how.get("quant_method") if isinstance(how, dict) else getattr(how, "quant_method", None)
        raise UsageError(
            f"model '{name}' is quantised ({getattr(kind, 'value', kind) or 'in a way that it does not name'}), and quantised "
            "weights cannot be trained: take the model that it was made of, or save it dequantised"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(
            f"model '{name}' has an encoder and a decoder ({config.model_type}): a causal language model is needed"
        )


def _check_weights(name: str, found: Any) -> None:
    """The weights are those that the configuration asks for, but for what transformers' own model says may differ.

    Raises:
        UsageError: some are missing, of another shape, or left over.
    """
    wrong = f"model '{name}': its weights are not those that its config.json asks for"
    ask = "take the configuration that belongs to the weights, or the weights that belong to the configuration"
    shapes = [
        f"{key} (stored {_shape(old)}, asked {_shape(new)})" for key, old, new in found.get("mismatched_keys") or ()
    ]
    if shapes:
        raise UsageError(f"{wrong}: of another shape {_some(shapes)}; {ask}")
    missing = found.get("missing_keys")
    if missing:
        raise UsageError(f"{wrong}: there is no {_some(missing)}, which would be drawn at random; {ask}")
    over = found.get("unexpected_keys")
    if over:
        raise UsageError(f"{wrong}: the model has no place for {_some(over)}; {ask}")
    errors = [*(found.get("error_msgs") or ()), *(found.get("conversion_errors") or {}).values()]
    if errors:
        raise UsageError(f"model '{name}' cannot be loaded: {str(errors[0]).strip().splitlines()[0]}")


def _check_kinds(name: str, floating: set[str]) -> None:
    """Weights are stored as numbers that need no scale, as those of a quantised model do.

    Raises:
        UsageError: some are not.
    """
    from safetensors import safe_open

    for path in sorted(Path(name).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                if key in floating and (kind := file.get_slice(key).get_dtype()) not in FLOATS:
                    raise UsageError(
                        f"model '{name}': its tensor {key} is stored as {kind}, as of a quantised model, and weights that are "
                        f"trained are stored as {', '.join(FLOATS)}: take the model that it was made of, or save it dequantised"
                    )


def _shape(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return f"{', '.join(ordered[:NAMED])}{more}"


@torch.no_grad()
def check_finite(model: Any, of: str) -> None:
    """No weight is NaN or infinite.

    Raises:
        UsageError: one is; the message names its tensor.
    """
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise UsageError(
                f"{of}: the tensor {name} has {count} of {tensor.numel()} numbers that are NaN or infinite: these weights are "
                "broken (a run that diverged, or a file that was cut); take an earlier checkpoint"
            )


def reason(error: BaseException) -> str:
    """The first line of an error, or two where it only announces the next, with its kind where that says more."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    line = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    if isinstance(error, (OSError, ValueError, ImportError)) and line:
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise UsageError(f"{folder} holds a LoRA adapter; make a whole model of it with 'cohort merge {folder}'")
        raise UsageError(f"{folder} is no model folder: it has no config.json")
    _check_generation(folder)
    if not list(folder.glob("*.safetensors")):
        pickles = [p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern)]
        if pickles:
            raise UsageError(
                f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code when it is loaded: "
                "convert it to safetensors (model.save_pretrained writes them) and try again"
            )
        raise UsageError(f"{folder} has no weights (*.safetensors)")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        raise UsageError(
            f"{folder} has no tokenizer (tokenizer.json): save the model's tokenizer into it with "
            "tokenizer.save_pretrained"
        )


def merge_adapter(adapter: Path, out: Path, *, trust_remote_code: bool = False) -> None:
    """Write the whole model that an adapter and its base make, with the tokenizer.

    Raises:
        UsageError: the folder holds no adapter, or its base or its own weights cannot be loaded or are not whole.
    """
    from peft import PeftConfig, PeftModel, get_peft_model
    from transformers import AutoTokenizer

    quiet_libraries()
    if not (adapter / "adapter_config.json").is_file():
        raise UsageError(
            f"{adapter} holds no LoRA adapter (no adapter_config.json)"
            if adapter.is_dir()
            else f"there is no folder {adapter}: name the one that holds the LoRA adapter"
        )
    try:
        base = str(PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(str(adapter), trust_remote_code=trust_remote_code)
    except Exception as error:
        raise UsageError(f"the adapter {adapter} cannot be loaded: {reason(error)}") from error
    try:
        model, _ = load_model(base, dtype="auto", trust_remote_code=trust_remote_code)
    except UsageError as error:
        raise UsageError(f"the base of the adapter {adapter}: {error}") from error
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))  # as peft does: the adapter brings the new rows
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            if is_sharded(adapter):
                settings = PeftConfig.from_pretrained(str(adapter))
                settings.inference_mode = False  # which would freeze what is read
                whole = get_peft_model(model, settings)
                read(adapter, below("policy", stored(whole)))
            else:
                whole = PeftModel.from_pretrained(model, str(adapter))
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"the adapter {adapter} cannot be put onto its base '{base}': {reason(error)}") from error
    check_finite(whole, f"adapter {adapter}")
    merged = whole.merge_and_unload()

    def save(folder: Path) -> None:
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    save_new(out, save)
