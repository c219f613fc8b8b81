"""What a person sees while they wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def decoding_progress(console: Console, what: str = "reading pictures") -> Iterator[Callable[[int, int], None]]:
    """A bar for (done, in all), shown as soon as it is called for the first time."""
    bar = Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
    task = bar.add_task("", total=None)

    def update(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def stage_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage, with an estimate of the time left; on no terminal a line every 15 seconds."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    tasks: dict[str, tuple[Any, float]] = {}
    said = [time.monotonic()]

    def update(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total), now
        task, begun = tasks[what]
        bar.update(task, completed=done)
        if console.is_terminal:
            bar.start()
        elif now - said[0] > 15:
            said[0] = now
            left = (now - begun) * (total - done) / done
            console.print(f"{what}: {done:,} of {total:,}, {left:.0f} s left", soft_wrap=True)

    try:
        yield update
    finally:
        if bar.live.is_started:
            bar.stop()


def span(seconds: float) -> str:
    """'1:05:09', '2:07'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class TrainingDisplay:
    """A live bar on a terminal; elsewhere (a log file) a line now and then."""

    def __init__(self, console: Console, config: Any) -> None:
        self.console = console
        self.config = config
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[state]}"), console=console, refresh_per_second=4,
        )  # fmt: skip
        self.task = self.bar.add_task("training", total=1.0, left="", state="")
        self.loss: float | None = None
        self.rate: float | None = None
        self._begun: tuple[float, float] | None = None
        self._next_line = 0.0

    def __enter__(self) -> TrainingDisplay:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, step: Any) -> None:
        """Takes in one step's Progress."""
        loss, rate = float(step.loss), step.samples_per_second
        self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss
        self.rate = rate if self.rate is None else 0.95 * self.rate + 0.05 * rate
        now = time.monotonic()
        self._begun = self._begun or (now, step.fraction)
        done = step.fraction - self._begun[1]
        left = (1 - step.fraction) * (now - self._begun[0]) / done if done > 0 else None
        left_text = f"{span(left)} left" if left is not None else ""
        state = f"step {step.step:,}  loss {self.loss:.4f}  {self.rate:.0f} samples/s"
        if self.console.is_terminal:
            self.bar.update(self.task, completed=step.fraction, left=left_text, state=state)
        elif now >= self._next_line:
            self._next_line = now + 15
            self.console.print(f"{100 * step.fraction:3.0f} %  {left_text:>12s}  {state}", soft_wrap=True)
