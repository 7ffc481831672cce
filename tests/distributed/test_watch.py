"""Where the driver waits for what does not come, since another rank has failed, it ends all the same, as a failed run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.distributed.failing import Failure, RankLost
from cohort.distributed.watch import Watch
from cohort.distributed.world import World

# The driver is in an operation that the other has left with an error.
STUCK = """
import time
from cohort.distributed import watch
from cohort.distributed.failing import Failure
from cohort.distributed.watch import Watch
from cohort.distributed.world import World

watch.GRACE = 0.3
world = World.from_environment()
world.open("cpu")
watched = Watch(world, lambda text: print(text, flush=True))
if world.driver:
    time.sleep(60)
watched.close(Failure.of(1, ValueError("no such kernel")))
"""


@pytest.mark.parametrize("launched", [False, True])
def test_a_driver_that_is_stuck_ends_as_a_failed_run(launched: bool, tmp_path: Path) -> None:
    script, record = tmp_path / "stuck.py", tmp_path / "record.json"
    script.write_text(STUCK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    own = {"COHORT_LAUNCH": str(record)} if launched else {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **own}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert "rank 1 failed: ValueError: no such kernel; the run ends without more ado" in ended.stdout
    if launched:
        # What launched it reads the record, and torchrun is not to start it again.
        assert ended.returncode == 0
        assert json.loads(record.read_text()) == {"status": 1}
    else:
        assert ended.returncode != 0


def test_last_words_that_were_cut_off_are_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = object.__new__(Watch)
    watch.world, watch._over, ended = World(), False, []
    monkeypatch.setattr(Watch, "_end", lambda _, status: ended.append(status))
    said = pickle.dumps(Failure.of(1, ValueError("no such kernel")))
    for length in range(1, len(said)):
        watch.lost = None
        watch._ended(1, said[:length])
        assert isinstance(watch.lost, RankLost)
        assert "rank 1" in str(watch.lost)
    watch.lost = None
    watch._ended(1, said)
    assert "no such kernel" in str(watch.lost)
    assert not isinstance(watch.lost, RankLost)
