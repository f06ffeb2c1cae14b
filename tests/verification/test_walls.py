"""The verifier is a tower: a wing imports only the wings below it."""

import ast
from pathlib import Path

import pytest

import jaxnet

PACKAGE = Path(jaxnet.__file__).parent
TOWER = (
    "audit",
    "rules",
    "check",
    "chain",
    "explanation",
    "reproducibility",
    "leaf",
    "context",
    "budget",
    "candidates",
    "function",
    "directions",
    "seeds",
    "leaves",
    "point",
    "report",
)
"""From the top to the ground."""

BELOW = ("differences", "array_types", "devices", "float64", "input_checks")
BELOW += ("jaxpr", "precision", "progress", "taps", "xla_options")
"""What of the package the verifier stands on."""


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {x.module for x in nodes if isinstance(x, ast.ImportFrom) and x.module}
    names |= {a.name for x in nodes if isinstance(x, ast.Import) for a in x.names}
    return {name.removeprefix("jaxnet.") for name in names if name[:7] == "jaxnet."}


def wing(name: str) -> str:
    """The wing of a module of the verifier."""
    return name.removeprefix("verification.").split(".")[0]


FILES = sorted((PACKAGE / "verification").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_wing_imports_only_wings_below(path: Path) -> None:
    """And of the rest of the package, only what it stands on."""
    own = path.relative_to(PACKAGE / "verification").with_suffix("").parts[0]
    if own == "__init__":
        return
    allowed = TOWER[TOWER.index(own) :]
    for name in imported(path):
        if name.startswith("verification"):
            assert wing(name) in allowed, f"{own} imports {name}"
        else:
            assert name.split(".")[0] in BELOW, f"{own} imports {name}"


def test_differences_and_report_stand_alone() -> None:
    """Differences know of no verifier, and the report of nothing that made it."""
    for path in (PACKAGE / "differences").glob("*.py"):
        assert not any(name.startswith("verification") for name in imported(path))
    for path in (PACKAGE / "verification" / "report").glob("*.py"):
        assert {wing(name) for name in imported(path)} <= {"report"}


def test_no_module_waits_for_another() -> None:
    """Within a wing too, no two modules import each other, however far around."""
    edges = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): imported(path)
        for path in PACKAGE.rglob("*.py")
    }
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name in finished or name not in edges:
            return
        for other in edges[name]:
            visit(other, (*above, name))
        finished.add(name)

    for name in edges:
        visit(name, ())
