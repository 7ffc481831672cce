"""Environments that do what no environment should, each by the row's `do`; read as a user's file is."""

import asyncio
import os
import random
import sys
import threading
import time

from cohort.environments import Observation, Step


def misbehave(do, left=0):
    """What a call comes to."""
    if do == "raise":
        raise KeyError("no such room")
    if do == "exit":
        sys.exit(3)
    if do == "interrupt":
        raise KeyboardInterrupt
    if do == "end the process":
        os._exit(7)
    if do == "abort":
        os.abort()
    if do == "tell the process":
        return Step(f"{os.getpid()}")
    if do == "hang":
        time.sleep(60)
    if do == "hold everything":
        # One call in C that lets nothing else run.
        sum(range(10**12))
    if do == "print":
        print("a line of its own")
        os.write(1, b"written past Python\n")
        sys.stdout.close()
    if do == "print much":
        print("x" * 5_000_000)
    if do == "read":
        assert sys.stdin.read() == ""
    if do == "fork" and os.fork() == 0:
        return Step("from the child")
    if do == "large":
        return Step("x" * 5_000_000)
    if do == "too large":
        return Step("x" * 17_000_000)
    if do == "a text":
        return "no step"
    if do == "nothing":
        return None
    if do == "cannot be sent":
        return Step([{"role": "user", "content": threading.Lock()}])
    if do == "itself":
        content = {"role": "user", "content": "x"}
        content["more"] = content
        return Step([content])
    if do == "nan":
        return Step("more", reward=float("nan"))
    if do == "infinite":
        return Step("more", reward=float("inf"))
    if do == "a text as reward":
        return Step("more", reward="much")
    if do == "unknown component":
        return Step("more", components={"style": 1.0})
    if do == "no message":
        return Step([{"text": "x"}])
    if do == "half a character":
        return Step("\ud800")
    if do == "nothing to go on from":
        return Step()
    if do == "media":
        return Step(Observation("look", media=[object()]))
    if do == "unparseable":
        return Step(done=True, end="unparseable")
    return Step("fine", reward=1.0, done=not left)


class Hostile:
    """One that does it in its second turn."""

    def __init__(self, wait=0.0):
        self.turn, self.wait = 0, wait

    def reset(self, row, seed):
        self.do = row["do"]
        if row.get("at") == "reset":
            misbehave(self.do)
        return row["prompt"]

    def step(self, message):
        time.sleep(self.wait)
        self.turn += 1
        return Step("go on", reward=0.5) if self.turn == 1 else misbehave(self.do)


class HostileAsync(Hostile):
    """The same with coroutines."""

    async def reset(self, row, seed):
        return Hostile.reset(self, row, seed)

    async def step(self, message):
        if self.do == "hang" and self.turn == 1:
            await asyncio.sleep(60)
        await asyncio.sleep(self.wait)
        self.wait = 0.0
        return Hostile.step(self, message)


class Fragile:
    """Fails for some seeds: whole groups."""

    def reset(self, row, seed):
        if random.Random(seed).random() < 0.3:
            raise OSError("no room left")
        return row["prompt"]

    def step(self, message):
        return Step(reward=float(len(message["content"])), done=True)


class Unmade:
    def __init__(self):
        raise OSError("no disk")

    def reset(self, row, seed): ...

    def step(self, message): ...


class NoStep:
    def reset(self, row, seed): ...


class Unrewarding:
    """Rewards nothing."""

    rewards = False

    def reset(self, row, seed):
        return row["prompt"]

    def step(self, message):
        return Step(done=True, reward=None)


class OwnRows(Hostile):
    """Has data of its own."""

    components = ("style",)

    @staticmethod
    def rows():
        return [{"prompt": f"task {i}", "do": "nothing bad"} for i in range(4)]

    @classmethod
    def held_out_rows(cls):
        return [{"prompt": "held out", "do": "nothing bad"}]


def made(wait=0.0):
    """A function that makes one."""
    return Hostile(wait)


def fails():
    """A function that does not."""
    raise ValueError("no server")


def other():
    """A function that makes something else."""
    return 3
