"""The scripts and manifests of examples/cluster: their command lines are ones that the command takes, and what is around them
is well-formed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from cohort.cli import app
from cohort.cli.options import resolved
from cohort.training.config import FIELDS, TrainConfig

FOLDER = Path(__file__).parent.parent / "examples" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))
MANIFESTS = sorted(FOLDER.glob("*.yaml"))


def parsed(words: list[str]) -> TrainConfig:
    """The configuration that `cohort train ...` would run with."""
    assert words[:2] == ["cohort", "train"]
    command = get_command(app).commands["train"]  # type: ignore[attr-defined]
    given: dict[str, Any] = command.make_context("train", words[2:]).params
    assert given["resume"], "what is lost on a cluster goes on"
    options = {key: value for key, value in given.items() if key in {*FIELDS, "method"} and value not in (None, [], ())}
    return resolved(options, set_=list(given["set_"] or []))


def in_script(path: Path) -> list[str]:
    """The words of the command line in a script, after its shell's variables."""
    text = path.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"(?:^| )(cohort train .*)$", text, re.MULTILINE)
    return shlex.split(re.sub(r"\$\{?\w+(\[\d\])?\}?", "value", line))


def in_manifest(path: Path) -> list[str]:
    (made,) = yaml.safe_load_all(path.read_text())
    if made["kind"] == "RayJob":
        return shlex.split(made["spec"]["entrypoint"])
    (container,) = made["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    return list(container["args"])


def test_the_page_names_them_all() -> None:
    page = (FOLDER / "README.md").read_text()
    assert len(SCRIPTS) + len(MANIFESTS) == 5
    for path in [*SCRIPTS, *MANIFESTS]:
        assert f"[`{path.name}`]({path.name})" in page
    assert "(cluster/README.md)" in (FOLDER.parent / "README.md").read_text()


@pytest.mark.parametrize("path", [*SCRIPTS, *MANIFESTS], ids=lambda path: path.name)
def test_its_command_line_is_one_that_the_command_takes(path: Path) -> None:
    config = parsed(in_script(path) if path.suffix == ".sbatch" else in_manifest(path))
    assert config.method == "dapo"
    assert config.plain()["group_size"] == 16
    if "ray" in path.stem:
        assert (config.plain()["engine"], config.plain()["workers"], config.plain()["ahead"]) == ("ray", 24, 1)
    if "servers" in path.stem:
        assert len(config.plain()["engine_url"]) == 2


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one_that_bash_reads(path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-n", str(path)], check=True, timeout=30)
    asked = set(re.findall(r"^#SBATCH --([a-z-]+)", path.read_text(), re.MULTILINE))
    assert {"nodes", "gpus-per-node", "requeue", "signal"} <= asked


@pytest.mark.parametrize(
    "path", [path for path in SCRIPTS if "torchrun" in path.read_text()], ids=lambda path: path.name
)
def test_its_options_of_torchrun_are_ones_that_torchrun_takes(path: Path) -> None:
    from torch.distributed.run import get_args_parser

    text = path.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^srun .*torchrun (.*)$", text, re.MULTILINE)
    words = shlex.split(re.sub(r"\$\{?\w+(\[\d\])?\}?", "4", line))
    args = get_args_parser().parse_args(words)
    assert (args.module, args.training_script, args.nproc_per_node) == (True, "cohort", "8")
    assert args.max_restarts == 3


def test_manifests_ask_for_what_the_command_uses() -> None:
    made = {path.stem: yaml.safe_load(path.read_text()) for path in MANIFESTS}
    job = made["pytorchjob"]["spec"]
    assert job["elasticPolicy"]["minReplicas"] == job["pytorchReplicaSpecs"]["Worker"]["replicas"]
    cluster = made["rayjob"]["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    # As many workers as GPUs of the pods that draw; the head's are the trainer's.
    asked = parsed(in_manifest(FOLDER / "rayjob.yaml")).plain()
    assert asked["workers"] == group["replicas"] * container["resources"]["limits"]["nvidia.com/gpu"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert asked["processes"] == head["resources"]["limits"]["nvidia.com/gpu"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"
    # Both kinds of pods see the run's folder.
    mounts = [{each["mountPath"] for each in pod["volumeMounts"]} for pod in (head, container)]
    assert mounts == [{"/shared", "/dev/shm"}] * 2
