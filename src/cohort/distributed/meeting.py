"""How the processes of an attempt find each other.

torchrun gives processes that it starts again the store of those before them, with the addresses that these left there: who
takes one of them waits for somebody who is gone. So each attempt meets under a name of its own.
"""

from __future__ import annotations

import json
import secrets
import time
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from cohort.distributed.failing import RankLost

MEETING = "cohort/meeting"
# Seconds between looks.
PAUSE = 0.05


def met(rank: int, size: int, limit: timedelta) -> tuple[Store, int]:
    """A store that only the processes of this attempt have, once all are there; where is said by torchrun's environment. And,
    for rank 0, the number of attempts before: torchrun counts those of each machine by themselves.

    Raises:
        RankLost: they did not come in time.
    """
    store, *_ = next(rendezvous("env://", timeout=limit))
    name = name_of_meeting(store, rank, size, limit)
    return PrefixStore(f"cohort/{name}", store), 0 if rank else store.add("cohort/attempts", 1) - 1


def name_of_meeting(store: Store, rank: int, size: int, limit: timedelta) -> str:
    """What all processes of this attempt, and nobody else, call it.

    Rank 0 chooses the name. Another rank may read the name of an attempt before: it goes on looking until rank 0 names it.
    """
    mine, end = secrets.token_hex(8), time.monotonic() + limit.total_seconds()
    if rank == 0:
        store.set(MEETING, mine)
    while time.monotonic() < end:
        if rank == 0:
            come = [f"{MEETING}/{mine}/{other}" for other in range(1, size)]
            if all(store.check([key]) for key in come):
                store.set(f"{MEETING}/{mine}/all", json.dumps([store.get(key).decode() for key in come]))
                return mine
        elif store.check([MEETING]):
            name = store.get(MEETING).decode()
            store.set(f"{MEETING}/{name}/{rank}", mine)
            everyone = f"{MEETING}/{name}/all"
            if store.check([everyone]) and mine in json.loads(store.get(everyone)):
                return name
        time.sleep(PAUSE)
    raise RankLost(f"the {size} processes did not find each other within {limit.total_seconds() / 60:.0f} minutes")
