"""Replies that were given before, on disk: one file for all processes of a user on a machine."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from cohort.rewards.judges.reply import Reply

FILE = "replies.sqlite"
# Seconds that a process waits for another one's write.
BUSY = 10.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL);
"""
CLAIM = """
INSERT INTO claims VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, until = excluded.until WHERE until < ?
"""


class Store:
    """Key of a question -> its reply.

    Who asks a question claims it for a time; another process that has the same question waits for the reply, and asks itself
    where the time has passed. A store that cannot be used (a full disk, a file system without locks) is done without, and
    `problem` says why.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.problem = folder / FILE, ""
        self._owner, self._lock = uuid.uuid4().hex, threading.Lock()
        self._open: sqlite3.Connection | None = None

    def _run(self, sql: str, values: Iterable[object]) -> tuple[list[tuple[str, ...]], int]:
        """Rows that a statement gives, and how many it changed; nothing where the store cannot be used."""
        with self._lock:
            if self.problem:
                return [], 1
            try:
                if self._open is None:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    # Its own transactions: each statement is one.
                    self._open = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
                    self._open.execute("PRAGMA synchronous = NORMAL")
                    self._open.executescript(SCHEMA)
                cursor = self._open.execute(sql, tuple(values))
                return cursor.fetchall(), cursor.rowcount
            except (sqlite3.Error, OSError) as error:
                self.problem = f"{self.path} cannot be used ({error}): replies of judges are not kept"
                return [], 1

    def get(self, key: str) -> Reply | None:
        """The reply to a question; None where it was not asked yet."""
        rows, _ = self._run("SELECT reply FROM replies WHERE key = ?", (key,))
        if not rows:
            return None
        text, read, written, finished = json.loads(rows[0][0])
        return Reply(text, read, written, finished, cached=True)

    def claim(self, key: str, seconds: float) -> bool:
        """True if the question is to be asked here; False while another asks it."""
        now = time.time()
        return self._run(CLAIM, (key, self._owner, now + seconds, now))[1] > 0

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply."""
        content = json.dumps([reply.text, reply.read, reply.written, reply.finished])
        self._run("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", (key, content, time.time()))

    def let_go(self, key: str) -> None:
        """Give up a claim."""
        self._run("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self._owner))
