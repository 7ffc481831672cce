"""What libraries print beside a run: bars for every load and save, advice, and warnings for their own developers."""

from __future__ import annotations

import os
import sys
import warnings

# Read by the libraries when they are imported, here and in processes that are started from here.
_SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_LIBRARIES = "transformers|torch|peft|datasets|huggingface_hub|tokenizers|accelerate"


def quiet_command() -> None:
    """Say so once for this process and those that it starts, where the user's environment says nothing else."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    quiet_libraries()


def quiet_libraries() -> None:
    """No bars, and no warnings of what a library will change in itself; those of a user's own code stay."""
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=rf"({_LIBRARIES})(\.|$)")
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.disable_progress_bar()
