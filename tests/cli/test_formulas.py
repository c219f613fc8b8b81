"""unstir formulas cannot go stale: it reads the docstrings, and every entry of the core tables must have one with an equation."""

from __future__ import annotations

from pathlib import Path

import pytest

import unstir
from unstir.cli import run
from unstir.cli.formulas import formulas, markdown
from unstir.objectives import OBJECTIVES, TIMES, WEIGHTS
from unstir.processes import PROCESSES, GivenVP
from unstir.samplers import GRIDS, SAMPLERS


@pytest.mark.parametrize("table", [PROCESSES, SAMPLERS, GRIDS, OBJECTIVES, WEIGHTS, TIMES])
def test_every_entry_of_the_core_has_an_equation_and_a_source(table: dict[str, type]) -> None:
    known = {formula.name for formula in formulas() if "=" in formula.equation or "~" in formula.equation}
    kinds = set(table.values()) - {GivenVP}  # any betas: nothing to cite
    missing = {f"{kind.__module__}.{kind.__name__}".removeprefix("unstir.") for kind in kinds} - known
    assert not missing, f"add Equation: and Source: sections to the docstrings of {missing}"


def test_file_and_line_lead_to_the_definition() -> None:
    root = Path(unstir.__file__).parents[1]
    for formula in formulas():
        line = (root / formula.file).read_text().splitlines()[formula.line - 1]
        name = formula.name.rpartition(".")[2]
        assert f"class {name}" in line or f"def {name}" in line


def test_every_source_names_a_year_or_a_derivation() -> None:
    for formula in formulas():
        assert any(year in formula.source for year in map(str, range(1850, 2027))) or "system" in formula.source


def test_search(capsys: pytest.CaptureFixture[str]) -> None:
    run(["formulas", "algorithm", "2206.00364", "churn"])
    out = capsys.readouterr().out
    assert "samplers.ode.Churn" in out
    assert "x_hat = x + sqrt(sigma_hat² - sigma²) S_noise z" in out
    assert "guidance.cfg" not in out


def test_the_page_holds_all() -> None:
    everything = formulas()
    page = markdown(everything)
    assert all(f"## {formula.name}\n" in page and formula.equation in page for formula in everything)
