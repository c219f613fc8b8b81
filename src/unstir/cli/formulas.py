"""unstir formulas [NAME]: formula <-> code. Read from the docstrings themselves, so the list cannot go stale.

Any docstring in the package with the sections ``Equation:`` and ``Source:`` is an entry. Nothing is imported: the sources are
parsed, which is quick.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unstir.errors import UserError, did_you_mean

_SECTION = re.compile(r"^(Equation|Source):\n((?:(?:    .*)?\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Formula:
    """One equation and the code that is it.

    Args:
        name: module path and name in the code, e.g. "samplers.ode.Heun".
        file, line: where it is.
        summary: the docstring's first paragraph.
        equation, source: the docstring's sections, lines joined.
    """

    name: str
    file: str
    line: int
    summary: str
    equation: str
    source: str

    def lines(self) -> list[str]:
        """For a terminal."""
        return [self.name, f"  {self.equation}", f"  {self.source}", f"  {self.file}:{self.line}"]

    def matches(self, words: list[str]) -> bool:
        """Whether every word occurs in it, in any case."""
        text = f"{self.name} {self.summary} {self.equation} {self.source}".lower().replace("_", " ")
        return all(word.lower().replace("_", " ") in text for word in words)


def _documented(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every module, class and function, with its dotted name."""
    queue: list[tuple[str, ast.AST]] = [("", tree)]
    while queue:
        prefix, node = queue.pop(0)
        yield prefix, node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                queue.append((f"{prefix}.{child.name}", child))


def formulas() -> list[Formula]:
    """All entries, in the order of the files."""
    package = Path(__file__).parents[1]
    found = []
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        for name, node in _documented(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node)  # type: ignore[arg-type]
            sections = {m[1]: " ".join(m[2].split()) for m in _SECTION.finditer((text or "") + "\n")}
            if len(sections) == 2:
                summary = " ".join((text or "").split("\n\n")[0].split())
                line = getattr(node, "lineno", 1)
                file = f"{package.name}/{path.relative_to(package).as_posix()}"
                found.append(Formula(module + name, file, line, summary, sections["Equation"], sections["Source"]))
    return found


def markdown(found: list[Formula]) -> str:
    """The page of all formulas, for the documentation."""
    parts = [
        "# Formulas",
        "Made from the docstrings by `unstir formulas --markdown`; `unstir formulas WORD` searches them.",
    ]
    for formula in found:
        source = re.sub(r"(https?://[^\s;,]+)", r"<\1>", formula.source)
        parts.append(
            f"## {formula.name}\n\n{formula.summary}\n\n    {formula.equation}\n\n{source}  \n`{formula.file}:{formula.line}`"
        )
    return "\n\n".join(parts)


def main(words: list[str]) -> None:
    """Runs the command."""
    if words and words[0] in ("-h", "--help"):
        print(
            "usage: unstir formulas [WORD ...]\n\nLists equations with their sources and the code that is them; all, or those with every word."
        )
        return
    everything = formulas()
    if words == ["--markdown"]:
        print(markdown(everything))
        return
    found = [formula for formula in everything if formula.matches(words)]
    if not found:
        names = [formula.name.rpartition(".")[2] for formula in everything]
        raise UserError(
            f"no formula with '{' '.join(words)}'; {did_you_mean(words[-1], names)} (unstir formulas lists all)"
        )
    if not words:
        width = max(len(formula.name) for formula in found)
        for formula in found:
            print(f"{formula.name:{width}s}  {formula.source.split(', http')[0]}")
        print(
            f"\n{len(found)} formulas; unstir formulas WORD shows those with a word in their name, equation or source."
        )
        return
    print("\n\n".join("\n".join(formula.lines()) for formula in found))
