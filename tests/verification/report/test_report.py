"""The report: its verdict, its table, and its way to JSON and back."""

import dataclasses
import functools
import html
import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.verification import (
    GradientMismatch,
    GradientReport,
    LeafReport,
    Verdict,
    check_gradients,
)
from jaxnet.verification.report.error_map import ErrorMap
from jaxnet.verification.report.ladder import Ladder
from jaxnet.verification.report.numbers import from_here, told_apart
from jaxnet.verification.report.shown import without_nan

X = np.random.default_rng(0).standard_normal((3, 4))


def loss(params: Any) -> Any:
    """Σ sin x + Σ relu y."""
    smooth = jnp.sum(jnp.sin(params["a leaf whose name is rather long"]["x"]))
    return smooth + jnp.sum(jax.nn.relu(params["y"]))


PARAMS = {
    "a leaf whose name is rather long": {"x": X},
    "y": np.array([0.5, 0.0, -1.0]),
    "n": np.arange(3),
}


def wrong(params: Any) -> Any:
    """One entry of x is off."""
    g = jax.grad(loss, allow_int=True)(params)
    name = "a leaf whose name is rather long"
    return {**g, name: {"x": g[name]["x"].at[1, 2].multiply(1.01)}}


def right(params: Any) -> Any:
    """JAX's own."""
    return jax.grad(loss, allow_int=True)(params)


CHECKS: dict[str, tuple[Any, Any, Any]] = {
    "right": (loss, PARAMS, {"right": right}),
    "wrong": (loss, PARAMS, {"right": right, "wrong": wrong}),
    "malformed": (loss, PARAMS, {"y": np.zeros(3)}),
    "bare": (lambda x: jnp.sum(x**2), X, {"candidate": 3 * X}),
}
EACH = pytest.mark.parametrize("name", CHECKS)


@functools.cache
def made(name: str) -> GradientReport:
    """One of four reports, made once."""
    return check_gradients(*CHECKS[name])


def leaf(verdict: Verdict, passed: bool = False, **fields: Any) -> LeafReport:
    """A record that was never measured."""
    return LeafReport("['w']", "hand", (2,), verdict, passed, **fields)


@EACH
def test_json_is_the_report(name: str) -> None:
    """Every field of every record; NaN is null, and infinity a string."""
    report = made(name)
    written = json.loads(report.to_json())
    assert set(written) == {field.name for field in dataclasses.fields(report)}
    for row, record in zip(written["leaves"], report.leaves, strict=True):
        for field in dataclasses.fields(record):
            value, got = getattr(record, field.name), row[field.name]
            if isinstance(value, Verdict):
                assert got == value.value
            elif isinstance(value, (Ladder, ErrorMap)):
                assert got == json.loads(json.dumps(without_nan(asdict(value))))
            elif isinstance(value, float):
                same = got is None if math.isnan(value) else float(got) == value
                assert same
            else:
                assert got == (list(value) if isinstance(value, tuple) else value)


@EACH
def test_json_holds_plain_values(name: str) -> None:
    """Anything that reads JSON finds verdict and path of each leaf."""
    leaves = json.loads(made(name).to_json())["leaves"]
    assert {x["verdict"] for x in leaves} <= {v.value for v in Verdict}
    assert all(isinstance(x["path"], str) for x in leaves)


def test_raise_if_failed() -> None:
    """Nothing for a report that passed; else an AssertionError with the table."""
    made("right").raise_if_failed()
    with pytest.raises(GradientMismatch) as caught:
        made("wrong").raise_if_failed()
    assert str(caught.value) == str(made("wrong"))
    assert isinstance(caught.value, AssertionError)


@EACH
def test_the_table_fits_80_columns(name: str) -> None:
    """No line is longer, none ends with spaces, and no colour is in it."""
    for line in str(made(name)).splitlines():
        assert len(line) <= 80
        assert line == line.rstrip()
        assert "\x1b" not in line


def test_a_table_of_long_names_fits_too() -> None:
    """Long paths are shortened in the middle; long causes are wrapped."""
    long = dataclasses.replace(
        leaf(Verdict.DISAGREE, cause="a word and another " * 20),
        path="".join(f"['level{i}']" for i in range(30)) + "['weight']",
        candidate="a candidate with a very long name",
        shape=(1024, 1024, 64, 64, 3),
    )
    report = GradientReport(
        leaves=(long,), held=("['x']",) * 50, notes=("seen " * 50,), blind_spots=("s",)
    )
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^\['l.*….*\['weight'\] a", text, re.MULTILINE)


def test_names_that_would_read_the_same_have_lines_of_their_own() -> None:
    """Whole; others are shortened in their row."""
    paths = [f"['params']['encoder_{i}']['projection']['kernel']" for i in range(2)]
    paths.append("['params']['a_layer_of_another_name']['projection']['bias']")
    leaves = [dataclasses.replace(leaf(Verdict.AGREE), path=path) for path in paths]
    lines = str(GradientReport(leaves=tuple(leaves))).splitlines()
    for path in paths[:2]:
        row = lines[lines.index(path) + 1]
        assert row.lstrip().startswith(leaves[0].candidate)
    assert paths[2] not in lines
    assert any(re.match(r"\['par.*….*\['bias'\] ", line) for line in lines)
    assert max(map(len, lines)) <= 80


@EACH
def test_the_table_opens_with_a_sentence(name: str) -> None:
    """PASSED or FAILED, and of what failed the worst place is named in it."""
    report = made(name)
    head, _, _ = str(report).partition("\n\n")
    assert head.startswith("PASSED: " if report.passed else "FAILED: ")
    if not report.passed:
        assert " ".join(report.worst.place.split()) in " ".join(head.split())


def names_in(text: str) -> list[str]:
    """The ends of the first words of a table's rows."""
    rows = [line for line in text.partition("\n\n")[2].splitlines()[1:]]
    return [row.split()[0][-5:] for row in rows if re.match(r"(params|[.\[])", row)]


def test_leaves_stand_in_their_own_order_or_the_worst_first() -> None:
    """As in the parameters; on request as `records` has them."""
    first, last = leaf(Verdict.AGREE, True), leaf(Verdict.DISAGREE)
    report = GradientReport((first, dataclasses.replace(last, path="['z']")))
    assert names_in(str(report)) == ["['w']", "['z']"]
    assert names_in(report.to_text(worst_first=True)) == ["['z']", "['w']"]
    order = [x.path for x in made("malformed").leaves]
    assert order == sorted(order)


def test_the_sentence_says_how_fine_the_check_was() -> None:
    """In digits and as the least error; and that a kink was set aside."""
    text = " ".join(str(made("right")).split())
    assert text.startswith("PASSED: kinks aside, right is right on 2 leaves, to")
    assert re.search(r"to 1\d digits; smallest detectable error: .e-1\d of", text)
    assert "held fixed: ['n']" in text
    assert f"{made('right').evaluations} evaluations" in text


@pytest.mark.parametrize(
    ("resolution", "said"), [(3e-05, ", to 4 digits; "), (0.05, ", to 1 digit; ")]
)
def test_digits_of_agreement(resolution: float, said: str) -> None:
    """The whole digits that are proved, of the leaf that is resolved least."""
    fine = leaf(Verdict.AGREE, True, resolution=1e-12)
    coarse = leaf(Verdict.AGREE, True, resolution=resolution)
    text = " ".join(str(GradientReport((fine, coarse))).split())
    least = f"smallest detectable error: {resolution:.1g} of the array's norm."
    assert said + least in text


def test_error_bound_and_resolution_have_one_unit() -> None:
    """Shares of the gradient's norm, of a coordinate and along a direction."""
    of = {"error": 3.0, "bound": 0.5, "resolution": 0.25, "norm": 2.0}
    one = leaf(Verdict.DISAGREE, **of)
    assert one.cells[-3:] == ("1.5e+00", "2.5e-01", "2.5e-01")
    along = dataclasses.replace(one, unit=10.0)
    assert along.cells[-3:] == ("1.5e-01", "2.5e-02", "2.5e-01")
    assert "in units of the leaf's gradient" in str(GradientReport((one,)))
    agrees = made("right").leaves[0]
    assert agrees.norm == pytest.approx(np.linalg.norm(np.cos(X)), rel=1e-6)
    assert agrees.error <= agrees.bound <= agrees.resolution * agrees.scale


def test_one_row_and_one_sentence_for_many_leaves() -> None:
    """Leaves that fail for one cause, without a place, are one row."""
    of = {"cause": "raised TypeError: no such key"}
    many = [leaf(Verdict.MALFORMED, **of) for _ in range(44)]
    many = [dataclasses.replace(x, path=f"['{i}']") for i, x in enumerate(many)]
    other = dataclasses.replace(leaf(Verdict.AGREE, True), candidate="right")
    report = GradientReport((*many[:20], other, *many[20:]))
    head, _, rest = str(report).partition("\n\n")
    assert (
        head == "FAILED: hand is MALFORMED in 44 leaves: raised TypeError: no such key."
    )
    assert re.search(r"^44 leaves +hand .*MALFORMED", rest, re.MULTILINE)
    assert rest.count("no such key") == 1
    assert "in ['0'], ['1'], ['2'] and 41 more" in " ".join(rest.split())
    assert len(rest.splitlines()) < 10
    page = html.unescape(report.as_html())
    assert all(f"['{i}']" in page for i in range(44))


def test_a_cause_that_was_said_is_not_said_again() -> None:
    """The rows below name the leaf where it stands; a page has it once as a heading."""
    of = {"cause": "a cause that is rather long, and not the same twice over"}
    rows = [leaf(Verdict.DISAGREE, worst_index=(i,), **of) for i in range(2)]
    report = GradientReport((*rows, leaf(Verdict.DISAGREE, cause="short")))
    rest = str(report).partition("\n\n")[2]
    assert " ".join(rest.split()).count(of["cause"]) == 1
    assert "the same as ['w']" in rest
    assert report.as_html().count(f"<b>{of['cause']}</b>") == 1


def test_the_table_says_both_values_and_the_cause() -> None:
    """Of a wrong coordinate."""
    worst = made("wrong").worst
    text = " ".join(str(made("wrong")).split())
    assert worst.worst_index == (1, 2)
    assert f"{worst.candidate_value:.9g}" in text
    assert f"differences say {worst.reference_value:.9g}" in text
    assert "×1.01" in worst.cause
    assert worst.candidate_value == pytest.approx(1.01 * np.cos(X[1, 2]), rel=1e-6)
    assert worst.reference_value == pytest.approx(np.cos(X[1, 2]), rel=1e-6)
    assert worst.error == pytest.approx(0.01 * abs(np.cos(X[1, 2])), rel=1e-6)


def test_the_worst_comes_first_whatever_the_parameters_are_called() -> None:
    """Of one array, whose path is empty, as of any: by verdict, then by excess."""
    for path in ("", "['w']"):
        small, large = (
            dataclasses.replace(
                leaf(Verdict.DISAGREE, error=error, bound=1.0),
                path=path,
                candidate=str(error),
            )
            for error in (2.0, 9.0)
        )
        report = GradientReport((small, large))
        assert report.worst is large
        assert dataclasses.replace(report, first_wrong="d_a").worst is large


@pytest.mark.parametrize("relative", [1e-2, 1e-7, 1e-11])
def test_values_that_differ_are_written_so_that_they_do(relative: float) -> None:
    """However small the error is, the two numbers of a sentence are not the same."""
    values = {"candidate_value": 1 + relative, "reference_value": 1.0}
    text = str(GradientReport((leaf(Verdict.DISAGREE, **values),)))
    found = re.search(r"is (\S+), not (\S+),", text)
    assert found is not None
    assert found[1] != found[2] == "1"
    assert float(found[1]) == pytest.approx(1 + relative, abs=relative / 2)


@EACH
def test_html_has_all_that_was_found(name: str) -> None:
    """Every row, cause, place, value, note and held leaf; markup is made harmless."""
    report = dataclasses.replace(made(name), notes=("a < b",), held=("['key']",))
    page = report._repr_html_()
    assert "a < b" not in page
    said = html.unescape(page)
    for record in report.leaves:
        assert all(cell in said for cell in record.cells)
        assert all(fact in said for fact in record.facts.values())
        assert from_here(record.cause) in said
        assert from_here(record.detail) in said or not record.passed
    assert "note: a < b" in said
    assert "held fixed: ['key']" in said
    assert f"{report.evaluations} evaluations" in said
    named = dataclasses.replace(report.leaves[0], candidate="<b>", path="['\"&<i>']")
    odd = GradientReport(leaves=(named,)).as_html()
    assert "<b></b>" not in odd.replace("&lt;", "")
    assert "<i>" not in odd
    assert "['\"&<i>']" in html.unescape(odd)


@EACH
def test_the_page_is_one_well_formed_file(name: str, tmp_path: Path) -> None:
    """What is wrong comes first; no script, and nothing from elsewhere."""
    report = made(name)
    path = report.to_html(tmp_path / "a folder" / "report.html")
    page = path.read_text(encoding="utf-8")
    assert report.as_html() in page
    assert not re.search(r"<script|http|src=|url\(|@import", page)
    parser = Nested()
    parser.feed(page)
    assert not parser.open
    if not report.passed:
        assert page.index("<section>") < page.index("<table>")


class Nested(HTMLParser):
    """Which elements are open; each has to be closed where it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open = list[str]()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """But for those of HTML that hold nothing."""
        self.open += [] if tag in ("meta", "br") else [tag]

    def handle_endtag(self, tag: str) -> None:
        """The last that was opened."""
        assert self.open.pop() == tag


def test_verdicts_are_ordered_from_the_worst() -> None:
    """The report's verdict is the worst leaf's; a kink never hides a mistake."""
    order = "MALFORMED DISAGREE NONDETERMINISTIC NONDIFFERENTIABLE UNRESOLVED"
    assert [v.value for v in Verdict] == [*order.split(), "UNINFORMATIVE", "AGREE"]
    assert Verdict.worst([]) is Verdict.AGREE
    verdicts = list(Verdict)
    for i, worse in enumerate(verdicts):
        for better in verdicts[i:]:
            report = GradientReport(leaves=(leaf(better), leaf(worse)))
            assert report.verdict is worse


def test_a_report_passes_if_all_leaves_do() -> None:
    """One that failed is enough; the first to look at failed, whatever its verdict."""
    kink = leaf(Verdict.NONDIFFERENTIABLE, passed=True)
    unsure = leaf(Verdict.UNRESOLVED)
    assert GradientReport(leaves=(kink, leaf(Verdict.AGREE, True))).passed
    report = GradientReport(leaves=(kink, unsure))
    assert not report.passed
    assert report.worst is unsure
    assert report.verdict is Verdict.NONDIFFERENTIABLE


def test_of_two_wrong_leaves_the_one_further_out_comes_first() -> None:
    """By error over bound."""
    near = leaf(Verdict.DISAGREE, error=2.0, bound=1.0)
    far = leaf(Verdict.DISAGREE, error=0.2, bound=1e-9)
    assert GradientReport(leaves=(near, far)).worst is far


def test_places() -> None:
    """keystr and index; a bare array is `params`, a scalar has no index."""
    at = dataclasses.replace
    assert at(leaf(Verdict.AGREE), worst_index=(2, 3)).place == "['w'][2, 3]"
    assert at(leaf(Verdict.AGREE), worst_index=()).place == "['w']"
    assert at(leaf(Verdict.AGREE), path="", worst_index=(7,)).place == "params[7]"
    assert at(leaf(Verdict.AGREE), path="").place == "params"


@pytest.mark.parametrize("evaluations", [0, 3])
def test_records_are_immutable(evaluations: int) -> None:
    """Neither a leaf's nor a report's fields can be set."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        leaf(Verdict.AGREE).evaluations = evaluations  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made("right").evaluations = evaluations  # type: ignore[misc]


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (0.0418022, 0.04180223, ("0.04180220", "0.04180223")),
        (2.977898e9, 2.9779e9, ("2.977898e+09", "2.977900e+09")),
        (1.5e-9, 2.0, ("1.5e-09", "2")),
    ],
)
def test_two_numbers_that_would_read_the_same(
    one: float, other: float, said: tuple[str, str]
) -> None:
    """Have more digits, equally many, before a power of ten."""
    assert told_apart(one, other, digits=6) == said
