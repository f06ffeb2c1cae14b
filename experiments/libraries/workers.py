"""Questions spread over processes, of which any may hang or die without the others."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")
"""Fresh processes: JAX has threads, which do not survive a fork."""

QUESTIONS = 60
"""Until a process is replaced by a fresh one: compiled programs are not given back."""

GLANCE = 1.0
"""Seconds between two looks at who is late."""

READY = "ready"
"""What a process sends first: its start is not held against its question."""

Ask = Callable[[str], Any]


def answers(
    ask: Ask, questions: Sequence[str], processes: int, patience: float
) -> Iterator[tuple[str, Any]]:
    """Each question with its answer, as they come.

    None in place of an answer that took more than `patience` seconds, or whose process
    died: a loop within a compiled program can be ended in no other way.

    Args:
        ask: a function that a fresh process can import; its answers are not None.
    """
    waiting, idle, busy = list(reversed(questions)), list[_Worker](), list[_Worker]()
    try:
        while waiting or busy:
            while waiting and len(busy) < processes:
                worker = idle.pop() if idle else _Worker(ask)
                worker.put(waiting.pop())
                busy.append(worker)
            ready = wait([worker.connection for worker in busy], GLANCE)
            for worker in list(busy):
                if worker.connection in ready:
                    answer = worker.answer()
                    if answer == READY:
                        continue
                elif worker.seconds > patience:
                    answer = None
                else:
                    continue
                busy.remove(worker)
                if answer is None or worker.asked >= QUESTIONS:
                    worker.process.kill()
                else:
                    idle.append(worker)
                yield worker.question, answer
    finally:
        for worker in (*idle, *busy):
            worker.process.kill()


class _Worker:
    """A process, what it was asked last, and since when."""

    def __init__(self, ask: Ask) -> None:
        self.connection, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(ask, other), daemon=True)
        self.process.start()
        other.close()
        self.question, self.asked, self.is_ready, self.began = "", 0, False, 0.0

    def put(self, question: str) -> None:
        """Ask it."""
        self.question, self.began = question, time.monotonic()
        self.asked += 1
        self.connection.send(question)

    @property
    def seconds(self) -> float:
        """Since it was asked; 0 until it is ready."""
        return time.monotonic() - self.began if self.is_ready else 0.0

    def answer(self) -> Any:
        """What it sent; None if it died."""
        try:
            found = self.connection.recv()
        except EOFError:
            return None
        if not self.is_ready:
            self.is_ready, self.began = True, time.monotonic()
        return found


def _serve(ask: Ask, connection: Connection) -> None:
    """In the process: answer until it is ended."""
    connection.send(READY)
    while True:
        connection.send(ask(connection.recv()))
