"""What was found in a data source: for `unstir data check`, and for the few lines that training prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


def printable(name: str) -> str:
    """A file name that any terminal can show (names on disk need not be valid UTF-8)."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")


def some(names: Iterable[str], limit: int = 3) -> str:
    """'a, b, c and 4 more'."""
    names = [printable(name) for name in names]
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def percent(part: int, whole: int) -> str:
    """'12 %'; what is there but rounds to nothing is '<1 %'."""
    share = 100 * part / max(whole, 1)
    return f"{share:.0f} %" if share >= 1 or part == 0 else "<1 %"


@dataclass
class Report:
    """What a data source holds.

    Args:
        source: as the user gave it.
        count: samples that can be used.
        facts: "what" -> "value", in the order of printing.
        classes: class name -> number of samples.
        broken: file name -> why it cannot be used.
        duplicates: groups of names whose content is the same, byte for byte.
        notes: what was decided, left out or looks like a mistake: full sentences.
        suggestions: options to use with this data.
    """

    source: str
    count: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    duplicates: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    suggestions: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """The lines worth saying once before training: what was skipped, and the notes."""
        skipped = f"{len(self.broken)} broken files are left out: {some(self.broken)} (unstir data check lists them)"
        return ([skipped] if self.broken else []) + self.notes

    def lines(self) -> list[str]:
        """Everything, one line each; every broken file by name."""
        lines = [f"{self.source}: {self.count:,} samples"]
        lines += [f"  {what}: {value}" for what, value in self.facts.items()]
        lines += self._class_lines()
        if self.duplicates:
            extra = sum(len(group) - 1 for group in self.duplicates)
            lines.append(f"  exact duplicates: {extra} in {len(self.duplicates)} groups")
            lines += [f"    {some(group)}" for group in self.duplicates[:10]]
            lines += [f"    and {len(self.duplicates) - 10} groups more"] if len(self.duplicates) > 10 else []
        if self.broken:
            lines.append(f"  broken files, left out: {len(self.broken)}")
            lines += [f"    {printable(name)}: {reason}" for name, reason in self.broken.items()]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  try: {suggestion}" for suggestion in self.suggestions]
        return lines

    def _class_lines(self) -> list[str]:
        if not self.classes:
            return []
        total = sum(self.classes.values())
        ranked = sorted(self.classes.items(), key=lambda item: -item[1])
        shown = ranked if len(ranked) <= 20 else [*ranked[:10], *ranked[-5:]]
        lines = [f"  classes: {len(ranked)}" + ("" if len(shown) == len(ranked) else ", the largest and the smallest:")]
        lines += [f"    {printable(name)}: {count:,} ({percent(count, total)})" for name, count in shown]
        most, least = ranked[0], ranked[-1]
        if most[1] > 10 * max(least[1], 1):
            lines.append(
                f"    unbalanced: {printable(most[0])} has {most[1] / max(least[1], 1):.0f} times {printable(least[0])}"
            )
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())
