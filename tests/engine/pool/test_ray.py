"""A pool of Ray's actors, one of which is killed in the middle of a step, and a machine of the other."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from cohort.engine.pool.ray import Cluster, Store, import_ray
from cohort.engine.pool.session import PoolSession
from cohort.engine.pool.weights import changing
from cohort.errors import UsageError
from tests.engine.pool import runs
from tests.helpers import tiny_policy

ray = import_ray()


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """Two of them, each with one processor, of which this process is the driver."""
    from ray.cluster_utils import Cluster as Machines

    folder = tempfile.mkdtemp(prefix="cr-", dir="/tmp")
    args = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    here = os.pathsep.join(filter(None, sys.path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", here)
        # Its sockets stand there, whose names must be short.
        patch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        made = Machines(initialize_head=True, head_node_args=args)
        del args["include_dashboard"]
        made.second = made.add_node(**args)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
        ray.shutdown()
        made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def actors() -> list[int]:
    """Processes that draw."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended
            found += [each.pid] if "ray::Host" in " ".join(each.cmdline()) else []
    return found


def test_weights_pass_through_the_store_as_they_are(machines: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        policy = tiny_policy("qwen3", dtype=dtype)
        shelf = Store(Cluster(None, workers=1))
        own, found = changing(policy), shelf.put(0, policy).fetch()
        assert list(found) == list(own)
        assert all(torch.equal(found[name], own[name]) and found[name].dtype == dtype for name in own)


def test_runs_that_share_rollouts_draw_theirs_over_workers(machines: Any, tmp_path: Path) -> None:
    folder = runs.model(tmp_path / "model")
    swarm = {"method": "sapo", "share_groups": 2, "steps": 1}
    runs.run(runs.base(folder, tmp_path / "other"), **swarm, share_folder=str(tmp_path / "swarm"), seed=7)
    found = []
    for name, more in (("alone", {}), ("workers", {"engine": "ray", "workers": 2})):
        own = shutil.copytree(tmp_path / "swarm", tmp_path / f"swarm-{name}")
        found.append(runs.run(runs.base(folder, tmp_path / name), **swarm, share_folder=str(own), **more))
    assert found[0].metrics[0]["shared/groups"] > 0
    assert found[1].metrics[0]["engine/workers"] == 2
    assert runs.numbers(found[0]) == runs.numbers(found[1])


def test_a_run_in_which_an_actor_and_a_machine_are_killed_has_the_numbers_of_one_process(
    machines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs.model(tmp_path / "model")
    alone = runs.run(runs.base(folder, tmp_path / "alone"), steps=5)
    killed = runs.when_dealt(monkeypatch, 1, lambda _: os.kill(actors()[0], signal.SIGKILL))

    def gone(session: PoolSession) -> None:
        machines.remove_node(machines.second, allow_graceful=False)

    removed = runs.when_dealt(monkeypatch, 3, gone)
    # Before that step, the one that was killed is waited for.
    before = PoolSession.submit

    def submit(self: PoolSession, request: Any) -> int:
        deadline = time.monotonic() + 90
        while self.id == 3 and not removed.is_set() and sum(each.alive for each in self.pool.members) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return before(self, request)

    monkeypatch.setattr(PoolSession, "submit", submit)
    result = runs.run(runs.base(folder, tmp_path / "run"), steps=5, engine="ray", workers=2)
    assert killed.is_set()
    assert removed.is_set()
    assert runs.numbers(result) == runs.numbers(alone)
    redrawn = [step["engine/redrawn"] for step in result.metrics]
    assert 0 == redrawn[0] < redrawn[1] <= redrawn[2] < redrawn[3]
    assert [result.metrics[at]["engine/workers"] for at in (0, 4)] == [2, 1]
    assert result.metrics[4]["engine/restarts"] == 1
    assert ray.is_initialized()  # the run leaves what it did not start
    deadline = time.monotonic() + 20
    while actors() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert actors() == []


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'cohort-rl\[ray\]'"):
        Cluster(None, workers=1)


def test_an_address_without_a_cluster_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address, says in (("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9"), ("here", "write it as in")):
        with pytest.raises(UsageError, match=says):
            Cluster(address, workers=1)
