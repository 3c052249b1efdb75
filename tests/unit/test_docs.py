"""What the documentation says of the tests is true of them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
_FAULTS = "| fault | what an operator sees | test |"


def rows() -> list[str]:
    """The lines of the table of faults, without its head."""
    _, _, after = OPERATIONS.partition(_FAULTS)
    return after.partition("\n\n")[0].strip().splitlines()[1:]


@cache
def existing() -> set[str]:
    modules = (ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("test_*.py"))
    return {one.name for module in modules for one in ast.walk(module)
            if isinstance(one, ast.FunctionDef)}  # fmt: skip


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip())
def test_each_fault_names_tests_that_exist(row: str) -> None:
    named = set(re.findall(r"`(\S+)`", row.split("|")[3]))
    assert named
    assert named <= existing()


def test_each_soak_program_has_its_figures() -> None:
    programs = {path.stem for path in (ROOT / "tests" / "soak").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"\| `python -m tests\.soak\.(\w+)", OPERATIONS)) == programs


def test_the_table_of_rooms_has_every_module() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    table = design.partition("| step | rooms |")[2].partition("\n\n")[0]
    agent = ROOT / "agent"
    modules = {path.stem for path in agent.glob("[!_]*.py")}
    packages = {path.parent.name for path in agent.glob("*/__init__.py")}
    assert {name.rstrip("/") for name in re.findall(r"`(\S+?)`", table)} == modules | packages
