"""The atlas of derivatives: what is wrong is named with the truth; nothing right is."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpmath import mp

from experiments import library_audit
from experiments.libraries import Entry, Point, Row, as_markdown, catalogue, rows_of
from experiments.libraries.domains import point
from experiments.libraries.entry import as_users_have_it
from experiments.libraries.many_digits import NotKnown, with_many_digits
from experiments.libraries.truth import limit_of_floats, methods, truth
from experiments.libraries.workers import answers

pytestmark = pytest.mark.slow

WIDEST = 100


@pytest.fixture(scope="module")
def entries() -> dict[str, Entry]:
    """The catalogue: it initialises some forty layers."""
    return catalogue()


def statuses(entry: Entry, at: Point) -> dict[tuple[int, str], str]:
    """(order, mode) -> what it comes to."""
    return {(row.order, row.mode): row.status for row in rows_of(entry, at)}


def of_slope(slope, function=jnp.sin):
    """A function whose rule has this derivative."""
    ruled = jax.custom_jvp(function)
    ruled.defjvps(lambda t, _, x: slope(x) * t)
    return ruled


@pytest.mark.parametrize(
    ("name", "x", "order", "true"),
    [
        ("jax.scipy.special.spence", 1.224, 1, "-0.9023401075"),
        ("jax.scipy.special.i0", 0.0, 1, "0"),
    ],
)
def test_known_faults_stand_with_the_truth_named(entries, name, x, order, true):
    """As long as the installed JAX has them; where it is right it is not accused."""
    entry = entries[name]
    rows = [row for row in rows_of(entry, point(x)) if row.order == order]
    assert rows
    for row in rows:
        is_right = float(row.given) == pytest.approx(float(true), rel=1e-6)
        assert row.status == ("agree" if is_right else "fault"), row
        assert row.true == true
    if jax.__version__ == "0.10.2":
        assert any(row.status == "fault" for row in rows)


@pytest.mark.parametrize("definition", [mp.sin, None])
def test_a_planted_mistake_is_caught_and_the_truth_named(definition):
    """1 % off, by the definition and by the program; the right rule is not accused."""
    at = point(0.7)
    wrong = of_slope(lambda x: 1.01 * jnp.cos(x))
    rows = {
        (r.order, r.mode): r for r in rows_of(Entry("f", wrong, (at,), definition), at)
    }
    for mode in ("reverse", "forward"):
        row = rows[1, mode]
        assert (row.status, row.true) == ("fault", f"{np.cos(0.7):.10g}")
        assert row.method == ("definition" if definition else "program")
        assert rows[2, mode].status in ("agree" if definition is None else "follows",)
    right = Entry("f", of_slope(jnp.cos), (at,), definition)
    assert set(statuses(right, at).values()) == {"agree"}


def test_a_second_derivative_beside_a_wrong_first_is_a_row_and_not_judged():
    """It is right, and not that of the first, which differences are taken of."""
    slope = jax.custom_jvp(lambda x: 1.01 * jnp.cos(x))
    slope.defjvps(lambda t, _, x: -jnp.sin(x) * t)
    found = statuses(Entry("f", of_slope(slope), (), mp.sin), point(0.7))
    assert found[1, "reverse"] == found[1, "forward"] == "fault"
    assert found[2, "reverse"] == found[2, "forward"] == "follows"


def test_a_wrong_second_derivative_is_caught():
    """The first is right at the point and constant beside it."""
    flat = of_slope(lambda x: jnp.cos(jax.lax.stop_gradient(x)))
    found = statuses(Entry("f", flat, (), mp.sin), point(0.7))
    assert found[1, "reverse"] == found[1, "forward"] == "agree"
    assert found[2, "reverse"] == found[2, "forward"] == "fault"


def test_a_point_without_derivative_is_no_fault():
    """Kinks inside and outside both slopes, an infinite slope, an end of a domain."""

    def first(function, x, definition=None):
        return statuses(Entry("f", function, (), definition), point(x))[1, "reverse"]

    assert first(jnp.abs, 0.0) == "convention"
    assert first(of_slope(lambda x: 7 + x, jnp.abs), 0.0) == "kink"
    assert first(jnp.sqrt, 0.0) == "none"
    power = of_slope(lambda x: 1.5 * jnp.sqrt(x), lambda x: x**1.5)
    assert first(power, 0.0) == "one-sided"
    assert first(of_slope(lambda x: x + 1, lambda x: x**1.5), 0.0) == "end"


def test_what_is_not_finite_or_raises_is_a_row():
    """A pole has a row of its value; so has a function that cannot be called."""

    def broken(x):
        raise KeyError("x")

    assert statuses(Entry("f", jnp.log, (), mp.log), point(0.0)) == {
        (0, "value"): "none"
    }
    (row,) = rows_of(Entry("f", broken, ()), point(1.0))
    assert (row.status, row.note) == ("raises", "KeyError: 'x'")
    wrong = Entry("f", lambda x: 1.1 * x, (), lambda x: x)
    assert rows_of(wrong, point(1.0))[0].status == "value"


def test_programs_have_the_values_of_their_definitions_with_many_digits():
    """Of arrays that are moved, multiplied, sorted, scanned and transformed."""
    with as_users_have_it():
        x = np.linspace(0.1, 0.9, 4)
        exact = [mp.mpf(v) for v in x]
        norm = mp.sqrt(sum(v * v for v in exact))
        cases = [
            (
                lambda x: jax.nn.softmax(x)[1],
                mp.exp(exact[1]) / sum(map(mp.exp, exact)),
            ),
            (lambda x: jnp.linalg.norm(x[::-1]), norm),
            (lambda x: jnp.sort(-x)[0], -exact[-1]),
            (lambda x: jnp.dot(x, x), norm**2),
            (
                lambda x: jax.lax.scan(lambda c, y: (c * y, c), 1.0, x)[0],
                mp.fprod(exact),
            ),
            (lambda x: jnp.fft.fft(x)[1].imag, exact[3] - exact[1]),
        ]
        with mp.workdps(30):
            for function, true in cases:
                found = with_many_digits(function, [x])(np.array(exact, object))
                assert abs(found - true) < 1e-15, function
        with pytest.raises(NotKnown, match="igamma_grad_a"):
            with_many_digits(lambda x: jax.lax.igamma_grad_a(x, x), [x[0]])(exact[0])


def test_differences_of_float64_values_say_how_far_they_can_be_trusted():
    """Of a smooth function ten digits; of noise nothing."""
    side = limit_of_floats(lambda x: np.exp(x[0]), [0.3], (0,), (1,))
    assert abs(side.value - np.exp(0.3)) <= 4 * side.error < 1e-9
    noise = limit_of_floats(lambda x: np.sin(1e9 * x[0]), [0.3], (0,), (1,))
    assert np.isnan(noise.value)


def test_a_jump_between_two_approximations_is_no_pole():
    """1e-16 apart at the point: the limit of the program's differences is none."""

    def joined(x):
        return jnp.where(x > 0.7, jnp.sin(x) + 1e-16, jnp.sin(x))

    with as_users_have_it():
        entry = Entry("f", joined, ())
        found = truth(methods(entry, [jnp.float64(0.7)]), np.array([0.7]), (0,))
    assert (found.kind, found.method) == ("derivative", "values")
    assert found.value == pytest.approx(np.cos(0.7), rel=1e-6)


def test_the_catalogue_is_large(entries):
    """Over 400 functions, variants not counted; each has a regular point and a name."""
    assert len({entry.base for entry in entries.values()}) >= 400
    assert all(entry.points for entry in entries.values())


def test_tables_keep_to_100_columns_and_count_what_is_wrong_of_ours():
    """One line for both modes; what our verifier got wrong is never left out."""
    rows = [
        Row("f(long=True)", "x", True, 1, mode, "DISAGREE", "fault", "1", "2")
        for mode in ("reverse", "forward")
    ]
    rows.append(Row("g", "y", False, 1, "reverse", "DISAGREE", "accused", "1", "1"))
    text = as_markdown(rows, {"jax": "0"})
    assert "verifier wrong: 1" in text
    assert text.count("| x ") == 1
    assert "`g`" in text
    assert max(map(len, text.splitlines())) <= WIDEST


def test_a_run_goes_on_where_it_was_stopped(monkeypatch, tmp_path, capsys):
    """Functions that are known are not asked again, unless they are named."""
    asked = []

    def answers(ask, names, processes, patience):
        for name in names:
            asked.append(name)
            yield name, [Row(name, "x", False, 1, "reverse", "AGREE", "agree")]

    names = {name: Entry(name, jnp.sin, (point(1.0),)) for name in ("sin", "sinc")}
    monkeypatch.setattr(library_audit, "catalogue", lambda: names)
    monkeypatch.setattr(library_audit, "answers", answers)
    flags = library_audit.Flags(tmp_path)
    library_audit.run(flags)
    path = tmp_path / "library_audit.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:9]]))
    library_audit.run(flags)
    assert asked == ["sin", "sinc", "sinc"]
    library_audit.run(dataclasses.replace(flags, only="sin$"))
    assert asked[3:] == ["sin"]
    with pytest.raises(SystemExit, match="no function's name matches 'sine': "):
        library_audit.run(dataclasses.replace(flags, only="sine"))
    path.write_text("\n".join([json.dumps({"versions": {}}), *lines[1:]]))
    library_audit.run(flags)
    assert asked[4:] == ["sin", "sinc"]
    assert "verifier wrong: 0" in capsys.readouterr().out
    assert (tmp_path / "LIBRARIES.md").exists()


def test_what_hangs_or_dies_costs_only_itself():
    """Of four questions two are answered; a process that died is replaced."""
    hang, die = "__import__('time').sleep(600)", "__import__('os')._exit(1)"
    questions = ["1 + 1", die, hang, "2 + 2"]
    found = dict(answers(eval, questions, processes=2, patience=5))
    assert found == {"1 + 1": 2, die: None, hang: None, "2 + 2": 4}


def test_an_error_of_the_second_method_is_a_row(monkeypatch):
    """Not the end of the run."""

    def failing(entry, at):
        raise ValueError("no")

    entry = Entry("sin", jnp.sin, (point(1.0),))
    monkeypatch.setattr(library_audit, "entries", lambda: {"sin": entry})
    monkeypatch.setattr(library_audit, "rows_of", failing)
    (row,) = library_audit.rows_of_function("sin")
    assert (row.status, row.note) == ("undecided", "ValueError: no")
