"""One process for each contender, and measurements in turns: A B C A B C ...

A fresh process has a fresh allocator and its own settings; taking turns spreads a machine's good and bad minutes evenly.
A worker is this same script called with ``--worker JOB``; it gets ready, and then measures once for every line it is sent.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from chart import Bar

Job = dict[str, Any]
Result = dict[str, Any]


def serve(measure: Callable[[], Result], about: Result) -> None:
    """The worker's side: says what it is, then measures whenever it is asked, until its input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints does not disturb the answers
    print(json.dumps(about), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), file=answers, flush=True)


@dataclass
class Worker:
    """A contender in its own process."""

    job: Job
    process: subprocess.Popen[str]

    def answer(self) -> Result:
        """The next line it prints.

        Raises:
            RuntimeError: it ended instead.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.job} ended with code {self.process.wait()}")
        result: Result = json.loads(line)
        return result

    def measure(self) -> Result:
        """One measurement."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()


@contextmanager
def worker(script: str, job: Job) -> Iterator[Worker]:
    """Starts a worker; ends it with the block."""
    command = [sys.executable, script, "--worker", json.dumps(job)]
    quiet = {
        **os.environ,
        "TQDM_DISABLE": "1",
    }  # a peer's sampler draws a progress bar for every batch; read at tqdm's import
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet) as process:
        try:
            yield Worker(job, process)
        finally:
            process.kill()


@dataclass(frozen=True)
class Measured:
    """What one job gave: its own description, and a number for each round."""

    job: Job
    about: Result
    rounds: list[Result]

    def values(self, key: str) -> list[float]:
        """One number of every round."""
        return [float(result[key]) for result in self.rounds]

    def median(self, key: str) -> float:
        return statistics.median(self.values(key))

    def spread(self, key: str) -> float:
        """(largest - smallest) / median over the rounds; the median may be 0 of so little work that its memory had been there."""
        values = self.values(key)
        return (max(values) - min(values)) / (statistics.median(values) or 1.0)

    @property
    def name(self) -> str:
        """For tables: who, and in what setting."""
        return f"{self.job['contender']}, {self.job['setting']}"

    def bar(self, key: str, name: str) -> Bar:
        """For a chart."""
        values = self.values(key)
        return Bar(name, self.median(key), min(values), max(values), str(self.job["contender"]))


def interleaved(script: str, jobs: list[Job], rounds: int) -> list[Measured]:
    """Measures all jobs in turns; they get ready one after another, so that none is disturbed while it does."""
    with ExitStack() as stack:
        workers: list[Worker] = []
        about: list[Result] = []
        for job in jobs:
            workers.append(stack.enter_context(worker(script, job)))
            about.append(workers[-1].answer())
        results: list[list[Result]] = [[] for _ in jobs]
        for number in range(rounds):
            for one, found in zip(workers, results, strict=True):
                found.append(one.measure())
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return [Measured(*parts) for parts in zip(jobs, about, results, strict=True)]
