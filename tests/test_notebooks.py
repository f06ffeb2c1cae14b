"""The notebooks run from the first cell to the last, and grade what is filled in."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FILLED = {
    "dy": "(y - t) / N",
    "dW2": "z1.T @ dy",
    "db2": "dy.sum(axis=0)",
    "da1": "dy @ W2.T",
    "dz1": "da1 * z1 * (1 - z1)",
    "dW1": "x.T @ dz1",
    "db1": "dz1.sum(axis=0)",
}
"""The answers."""

FEW_STEPS = 30


def read(name: str) -> Any:
    """A notebook by its name."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(notebook: Any) -> Any:
    """The notebook with its outputs, run in its own folder."""
    resources = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(notebook, timeout=600, resources=resources)
    return client.execute()


def tagged(notebook: Any, tag: str) -> list[Any]:
    """The cells with a tag."""
    return [c for c in notebook.cells if tag in c.metadata.get("tags", ())]


def text_of(cell: Any) -> str:
    """What a cell printed."""
    return "".join(out.get("text", "") for out in cell.outputs)


def graded(**answers: str) -> tuple[list[str], dict[str, Any]]:
    """What each exercise printed with these answers, and the score."""
    notebook = read("backprop_by_hand")
    for cell in tagged(notebook, "exercise"):
        name = cell.source.split(" =")[0]
        given = answers.get(name, "...")
        cell.source = cell.source.replace(f"{name} = ...", f"{name} = {given}")
        if name in answers.get("hinted", ""):
            asked = f'grade({name}={name}, hint="formula")'
            cell.source = cell.source.replace(f"grade({name}={name})", asked)
    executed(notebook)
    (last,) = tagged(notebook, "score")
    said = [text_of(cell) for cell in tagged(notebook, "exercise")]
    return said, json.loads(text_of(last))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_sources_are_clean(path: Path) -> None:
    """No output, no count; a valid notebook."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", ["chapter4", "chapter4.ja"])
def test_chapter_four_gives_the_numbers_that_were_printed(name: str) -> None:
    """It runs to its end in a few steps, and shows its figures as pictures."""
    notebook = read(name)
    (cell,) = tagged(notebook, "parameters")
    assert cell.source == "num_steps = 5000"
    cell.source = f"num_steps = {FEW_STEPS}"
    shown = [out for c in executed(notebook).cells for out in c.get("outputs", ())]
    assert sum("image/png" in out.get("data", ()) for out in shown) == 4
    text = "".join(out.get("text", "") for out in shown)
    assert text.count("printed") == text.count("ours   ") - 3 == 5
    assert "write learning_rate" in text
    assert f"History of {FEW_STEPS} steps" in str(shown)


def test_a_number_that_differs_stops_chapter_four() -> None:
    """The loss of another batch is not what was printed."""
    notebook = read("chapter4")
    wrong = [c for c in notebook.cells if "8.059047775479161" in c.source]
    wrong[0].source = wrong[0].source.replace("np.array([2, 2])", "np.array([2, 3])")
    with pytest.raises(CellExecutionError, match=r"8\.0590"):
        executed(notebook)


def test_both_languages_have_one_code() -> None:
    """The Japanese notebook is no older than the English one."""
    english, japanese = (
        [c.source for c in read(name).cells if c.cell_type == "code"]
        for name in ("chapter4", "chapter4.ja")
    )
    assert english == japanese


def test_right_answers_have_the_whole_score() -> None:
    """Seven links are right, at the first rung."""
    said, score = graded(**FILLED)
    assert [line.split(maxsplit=1)[1].strip() for line in said] == ["is right"] * 7
    assert (score["right"], score["of"]) == (7, 7)
    assert {x["hint"] for x in score["links"].values()} == {"verdict"}


def test_blanks_have_none() -> None:
    """As it is handed out, it runs, and says what is to be done."""
    said, score = graded()
    assert all("is blank" in line for line in said)
    assert score["right"] == 0
    assert {x["verdict"] for x in score["links"].values()} == {"BLANK"}


def test_wrong_answers_are_found_where_they_are() -> None:
    """Three mistakes, and what the first leads to; the ladder names it by rungs."""
    wrong = {**FILLED, "dz1": "da1", "dW2": "dy.T @ z1", "db2": "dy.mean(axis=0)"}
    said, score = graded(**wrong, hinted="dz1 dW2 db2")
    links = score["links"]
    right = [name for name, link in links.items() if link["right"]]
    assert right == ["dy", "da1"]
    assert score["right"] == 2
    assert links["dW2"]["verdict"] == "MALFORMED"
    assert [links[n]["hint"] for n in ("dz1", "dy")] == ["formula", "verdict"]
    by_name = dict(zip(FILLED, said, strict=True))
    place, cause, formula = by_name["dz1"].splitlines()[1:]
    assert "place: dz1[" in place
    assert "it is da1: the derivative between them is missing" in cause
    assert formula.strip() == f"formula: {FILLED['dz1']}"
    assert "its shape is (10, 8), not (8, 10)" in by_name["dW2"]
    assert "the batch size (6)" in by_name["db2"]
    assert "look at dz1 first" in by_name["dW1"]
    assert not any("look at" in by_name[name] for name in ("dz1", "dW2", "db2"))
    assert "formula" not in by_name["dW1"]


def test_a_link_is_passed_by_its_name() -> None:
    """Else it would be taken for a hint."""
    spec = importlib.util.spec_from_file_location("grading", FOLDER / "grading.py")
    assert spec is not None
    assert spec.loader is not None
    grading = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grading)
    with pytest.raises(TypeError, match=r"name what you pass: grade\(dy=dy\)"):
        grading.Exercise.grade(None, np.ones(3))
