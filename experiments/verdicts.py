"""Is every verdict, place and cause of every case what it was?

    python experiments/verdicts.py --out before.json
    python experiments/verdicts.py --out after.json --against before.json

Asks the verifier every case of gradient_cases, autodiff's gradient of each of their
losses, the rules of checkers, the book's network on MNIST and random functions; with
--cases, also those of a folder with gradients.py and rules.py, and with --tests, what a
folder of tests asks. Writes all that was answered to --out, after every answer. With
--against, prints what differs from an earlier file: each verdict, place and cause, each
note and blind spot, and how many resolutions and evaluations; exits 1 if there is one
of the first three. With several earlier files, what differs between these is left out.
With --renamed, asks every gradient again under other names and in reverse order, and
prints what that changes. Takes about 5 minutes on two cores; --quick, half a minute.
"""

import importlib.util
import json
import math
import multiprocessing
import os
import random
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxnet
from experiments.checkers.question import LossTask, RuleTask
from experiments.checkers.questions import mnist_questions
from experiments.checkers.rule_tasks import rule_questions
from experiments.command import parsed
from experiments.gradient_cases import FAMILIES, all_cases, plant

CHECKS = {
    "gradients": "check_gradients",
    "vjp": "check_vjp",
    "jvp": "check_jvp",
}
QUICK = (
    "cases/mlp_right",
    "cases/mlp_b1_sign",
    "cases/nan_one_coord",
    "cases/loss_is_nan",
    "autodiff/relu_at_0",
    "rules/rule_divide_wrong",
)
MNIST = (
    "right",
    "b1_zero",
    "W2_1pct",
    "all_1pct",
    "pixel_dropped",
    "unit_zero",
    "W1_sign",
    "W1_0.001pct",
)
"""Gradients of the book's network."""
NOT_ASKED = ("test_package", "test_verdicts", "test_verdicts_script")
"""Tests that build a wheel, or ask what is asked without them."""
RANDOM_FUNCTIONS = 28
KEPT = 25
"""After so many cases their programs are forgotten: all would take 4 GB."""
FINER = 2.0
"""A resolution that changed by no more than this factor is the same."""
LISTED = 10
"""Of changed numbers so many are printed, the largest changes."""
DECIDED = ("verdict", "passed", "place", "cause")
"""What must not differ."""
SAID = ("notes", "blind_spots", "odd_one_out", "held")
"""What is printed if it differs."""
COUNTED = ("resolution", "evaluations")

Answer = dict[str, Any]
Answers = dict[str, Answer]


@dataclass(frozen=True)
class Flags:
    """What the verifier says, kept and compared."""

    out: Path | None = None
    """JSON file of all answers."""
    against: tuple[Path, ...] = ()
    """Earlier files, to compare with the first of them."""
    given: Path | None = None
    """Ask nothing; compare the answers of this file."""
    cases: Path | None = None
    """Folder with gradients.py (CASES) and rules.py (RULES), to be asked too."""
    tests: Path | None = None
    """Folder of tests, whose calls of the verifier are noted too."""
    part: tuple[str, ...] = ()
    """Only cases whose id contains one of these."""
    renamed: bool = False
    """Ask every gradient again under another name."""
    processes: int = 1
    """The cases are split over so many."""
    limit: float = 900.0
    """Seconds that one case may take."""
    quick: bool = False
    """A handful of cases."""


@dataclass(frozen=True, eq=False)
class Question:
    """One call of the verifier. `at`: the parameters, or the arguments of a rule."""

    check: str
    function: Callable[..., Any]
    at: Any
    candidates: Any = None
    options: dict[str, Any] = field(default_factory=dict)

    def ask(self, candidates: Any = None) -> Any:
        """The verifier's report, of other candidates if they are given."""
        check = getattr(jaxnet, CHECKS[self.check])
        if self.check != "gradients":
            return check(self.function, *self.at, **self.options)
        candidates = self.candidates if candidates is None else candidates
        return check(self.function, self.at, candidates, **self.options)


Make = Callable[[], Question]
"""To build some takes longer than to ask."""


def main() -> None:
    """Ask or read, compare, print, and exit."""
    flags = parsed(Flags, __doc__)
    earlier = [json.loads(path.read_text())["cases"] for path in flags.against]
    if flags.given is None:
        answers = asked(flags)
    else:
        answers = json.loads(flags.given.read_text())["cases"]
    print(summary(answers))
    bad = print_renamed(answers) if flags.renamed else 0
    if earlier:
        first, *others = (
            {x: a for x, a in answers.items() if is_chosen(x, flags)}
            for answers in earlier
        )
        bad += print_differences(first, answers, others)
    sys.exit(bool(bad))


def is_chosen(name: str, flags: Flags) -> bool:
    """Whether the flags select this id; what a test asks, by its file."""
    name = name.split("::")[0]
    if flags.quick and name not in QUICK:
        return False
    return not flags.part or any(part in name for part in flags.part)


# The cases.


def questions(flags: Flags) -> dict[str, Make]:
    """All of them by id, always in this order; what tests ask is in their files."""
    found = [*own_questions(), *(folder_questions(flags.cases) if flags.cases else [])]
    chosen = [(name, make) for name, make in found if is_chosen(name, flags)]
    assert len(dict(chosen)) == len(chosen), "an id is there twice"
    return dict(chosen)


def own_questions() -> Iterator[tuple[str, Make]]:
    """Those of this project."""
    losses: set[Any] = set()
    for case in all_cases():
        name, at = case.name, (case.loss, case.params)
        yield f"cases/{name}", partial(Question, "gradients", *at, case.candidate)
        if case.traceable and case.loss not in losses:
            losses.add(case.loss)
            yield f"autodiff/{name}", partial(Question, "gradients", *at)
    for question in rule_questions():
        task = question.task
        assert isinstance(task, RuleTask)
        make = partial(Question, task.mode, task.function, task.args)
        yield f"rules/{question.name}", make
    for name in MNIST:
        yield f"mnist/mnist_0_{name}", partial(mnist_question, f"mnist_0_{name}")
    for number in range(RANDOM_FUNCTIONS):
        family = list(FAMILIES)[number % len(FAMILIES)]
        yield f"random/{number}_{family}", partial(random_question, number, family)


def mnist_question(name: str) -> Question:
    """The book's network on 100 digits, with its gradient or a wrong one."""
    (task,) = (x.task for x in mnist_questions(0) if x.name == name)
    assert isinstance(task, LossTask)
    given = {"candidate": task.candidate}
    return Question("gradients", task.loss, task.params, given)


def random_question(number: int, family: str) -> Question:
    """A random function with its gradient, and one coordinate of it off by 1e-3."""
    rng = np.random.default_rng([0, number])
    loss, params, gradient = FAMILIES[family](rng, 10.0 ** rng.uniform(-3, 3))
    given = {"right": gradient, "wrong": plant(rng, gradient, 1e-3)[0]}
    return Question("gradients", loss, params, given, {"key": number})


def folder_questions(folder: Path) -> Iterator[tuple[str, Make]]:
    """Those of gradients.py and rules.py, which are dicts."""
    for case in module_of(folder / "gradients.py").CASES:
        given = case["g"]
        named = isinstance(given, dict) and {"autodiff", "mine"} & set(given)
        if given is not None and not named:
            given = {"candidate": given}
        at = case["f"], case["x"], given, case["kw"]
        yield (
            f"{folder.name}/gradients/{case['id']}",
            partial(Question, "gradients", *at),
        )
    for case in module_of(folder / "rules.py").RULES:
        make = partial(
            Question, case["mode"], case["f"], case["args"], None, case["kw"]
        )
        yield f"{folder.name}/rules/{case['id']}", make


def module_of(path: Path) -> Any:
    """What a file defines."""
    spec = importlib.util.spec_from_file_location(f"cases_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_files(flags: Flags) -> list[Path]:
    """The tests that ask the verifier."""
    if flags.tests is None:
        return []
    asks = re.compile(rf"\b({'|'.join(CHECKS.values())})\(")
    files = [
        x for x in sorted(flags.tests.rglob("test_*.py")) if x.stem not in NOT_ASKED
    ]
    files = [path for path in files if asks.search(path.read_text())]
    return [path for path in files if is_chosen(f"tests/{path.name}", flags)]


# The answers.


def answer(question: Question, again: bool) -> Answer:
    """What the verifier says to one question; `again`, also by other names."""
    begin = time.perf_counter()
    found = said_by(question.ask)
    if again and question.check == "gradients" and "raised" not in found:
        found["renamed"] = under_other_names(question, found)
    return {**found, "seconds": round(time.perf_counter() - begin, 2)}


def said_by(ask: Callable[[], Any]) -> Answer:
    """The report as JSON knows it, or the exception."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 -- a case that draws from it is as it was
    try:
        return as_answer(ask())
    except Exception as error:
        return raised(error)


def raised(error: Exception) -> Answer:
    """An exception in place of a report."""
    return {"raised": portable(f"{type(error).__name__}: {error}")}


def portable(text: str) -> str:
    """Text whose files are named from the project's folder, wherever that lies."""
    return re.sub(r"[^\s`'(]*/(?=(experiments|tests|jaxnet)/)", "", text)


def as_answer(report: Any) -> Answer:
    """A report: what is said of it as a whole, and of each leaf and each demand."""
    rows: dict[str, Answer] = {}
    leaves = [(x.path or "params", x) for x in report.leaves]
    demands = [(x.name, x) for x in getattr(report, "demands", ())]
    for path, row in [*leaves, *demands]:
        name = f"{row.candidate} {path}"
        while name in rows:
            name += " again"
        rows[name] = as_row(row)
    older: Any = getattr(report, "survivors", ())
    blind_spots = getattr(report, "blind_spots", older)
    return {
        "verdict": report.verdict.name,
        "passed": bool(report.passed),
        "evaluations": report.evaluations,
        "notes": [portable(note) for note in report.notes],
        "blind_spots": [portable(spot) for spot in blind_spots],
        "odd_one_out": report.odd_one_out,
        "held": list(report.held),
        "rows": rows,
    }


def as_row(row: Any) -> Answer:
    """A leaf, or a demand, which may have fewer numbers."""
    found: Answer = {
        "candidate": row.candidate,
        "verdict": row.verdict.name,
        "passed": bool(row.passed),
        "cause": portable(row.cause),
    }
    if hasattr(row, "worst_index"):
        index = row.worst_index
        found["place"] = None if index is None else [int(i) for i in index]
    for name in ("resolution", "error", "bound"):
        if hasattr(row, name):
            value = float(getattr(row, name))
            found[name] = value if math.isfinite(value) else str(value)
    return found


def under_other_names(question: Question, found: Answer) -> Answer:
    """What differs if the candidates have other names and another order.

    Less what is another thing each time it is asked. `counts`: the default candidate
    has no name to change; jax.grad under a name stands for it, and may differ.
    """
    names = list(dict.fromkeys(row["candidate"] for row in found["rows"].values()))
    given = question.candidates
    if given is None:
        given = {"autodiff": jax.grad(question.function)}
    elif not (isinstance(given, dict) and set(names) <= set(given)):
        given = {names[0]: given}
    new = other_names(list(given))
    other = {new[name]: given[name] for name in reversed(given)}

    def changes() -> set[Difference]:
        said = said_by(lambda: question.ask(other))
        return set(differences(found, by_old_names(said, new, found)))

    lines = changes()
    if lines:
        lines -= set(differences(found, said_by(question.ask)))
        lines &= changes()
    listed = sorted(x for x in lines if x.what not in ("notes", "blind_spots"))
    counts = question.candidates is not None
    return {"counts": counts, "lines": [list(x) for x in listed]}


def other_names(names: list[str]) -> dict[str, str]:
    """Autodiff loses its name, and the first of the others gets it."""
    first = next((name for name in names if name != "autodiff"), None)
    new = {"autodiff": "mine", first: "autodiff"}
    return {name: new.get(name, f"other {name}") for name in names}


def by_old_names(said: Answer, new: dict[str, str], found: Answer) -> Answer:
    """An answer with the first names, also in a cause that is then as it was."""
    if "raised" in said:
        return said
    old = {name: before for before, name in new.items()}
    rows = {}
    for name, row in said["rows"].items():
        candidate = old[row["candidate"]]
        key = candidate + name.removeprefix(row["candidate"])
        cause = row["cause"].replace(row["candidate"], candidate)
        same = cause == found["rows"].get(key, {}).get("cause")
        rows[key] = {**row, **({"cause": cause} if same else {})}
    odd = said["odd_one_out"]
    return {**said, "rows": rows, "odd_one_out": old.get(odd, odd)}


def answers_of_tests(path: Path) -> Answers:
    """All that one file of tests is told: by the test, and the number of its call."""
    import pytest

    note = Note(path.name)
    options = ["-p", "no:terminal", "-p", "no:cacheprovider"]
    options += ["-o", "addopts=", "-o", "filterwarnings="]
    sys.path.append(str(path.resolve().parent.parent))
    switches = ("jax_numpy_dtype_promotion", "jax_numpy_rank_promotion")
    before = {switch: getattr(jax.config, switch) for switch in switches}
    try:
        with note.taken():
            pytest.main([*options, str(path)], plugins=[note])
    finally:
        for switch, value in before.items():
            jax.config.update(switch, value)
    return note.answers


class Note:
    """A plugin of pytest that notes each answer a test gets."""

    def __init__(self, file: str) -> None:
        self.file, self.test = file, ""
        self.answers: Answers = {}
        self.times: Counter[str] = Counter()
        self.is_asking = False

    def pytest_runtest_setup(self, item: Any) -> None:
        """The test that begins."""
        self.test = f"tests/{self.file}::{item.name}"

    @contextmanager
    def taken(self) -> Iterator[None]:
        """In place of the checks stand some that note, wherever jaxnet has them."""
        modules = [m for x, m in sys.modules.items() if x.split(".")[0] == "jaxnet"]
        checks = {name: getattr(jaxnet, name) for name in CHECKS.values()}
        held = [
            (module, name, checks[name])
            for name in checks
            for module in modules
            if getattr(module, name, None) is checks[name]
        ]
        for module, name, check in held:
            setattr(module, name, self.noted(check))
        try:
            yield
        finally:
            for module, name, check in held:
                setattr(module, name, check)

    def noted(self, check: Callable[..., Any]) -> Callable[..., Any]:
        """The check, that notes what it answers, unless another one asks it."""

        @wraps(check)
        def asked(*args: Any, **options: Any) -> Any:
            if self.is_asking:
                return check(*args, **options)
            self.times[self.test] += 1
            name = f"{self.test}#{self.times[self.test]}"
            self.is_asking = True
            try:
                report = check(*args, **options)
                self.answers[name] = as_answer(report)
            except Exception as error:
                self.answers[name] = raised(error)
                raise
            finally:
                self.is_asking = False
            return report

        return asked


# Processes: what ends one is the answer of the case that did.


def asked(flags: Flags) -> Answers:
    """Every answer, written after each, so that nothing ends with a process."""
    units = list(questions(flags))
    units += [f"tests/{path.name}" for path in test_files(flags)]
    shares = [units[k :: flags.processes] for k in range(flags.processes)]
    workers = [Worker(flags, share) for share in shares if share]
    found: dict[str, Answers] = {}
    while workers:
        wait([worker.pipe for worker in workers], timeout=1)
        for worker in workers:
            for unit, answers in worker.finished():
                found[unit] = answers
                report_progress(unit, answers, f"{len(found)}/{len(units)}")
                write(flags, units, found)
        workers = [worker for worker in workers if worker.units]
    return in_order(units, found)


class Worker:
    """A process, and what it has yet to ask; a new one takes over if it ends."""

    def __init__(self, flags: Flags, units: list[str]) -> None:
        self.flags, self.units = flags, units
        self.start()

    def start(self) -> None:
        """A fresh process for all that is left."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (self.flags, self.units, theirs)
        self.process = context.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.since = time.monotonic()

    def finished(self) -> Iterator[tuple[str, Answers]]:
        """The units answered since the last call."""
        try:
            while self.units and self.pipe.poll():
                yield self.units[0], self.pipe.recv()
                self.units = self.units[1:]
                self.since = time.monotonic()
        except (EOFError, OSError):
            self.process.join()
            yield from self.ended(f"the process ended by {end_of(self.process)}")
        if self.units and time.monotonic() - self.since > self.flags.limit:
            self.process.kill()
            self.process.join()
            yield from self.ended(f"no answer in {self.flags.limit:.0f} s")

    def ended(self, why: str) -> Iterator[tuple[str, Answers]]:
        """The process is no more: that is its last answer."""
        unit, *self.units = self.units
        if self.units:
            self.start()
        yield unit, {unit: {"raised": why}}


def end_of(process: Any) -> str:
    """The name of the signal, or the exit status."""
    code = process.exitcode
    return signal.Signals(-code).name if code < 0 else f"exit({code})"


def work(flags: Flags, units: list[str], pipe: Connection) -> None:
    """What a process does: its own questions, one after the other."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where cases print
    warnings.simplefilter("ignore")
    known = questions(flags)
    files = {f"tests/{path.name}": path for path in test_files(flags)}
    for number, unit in enumerate(units):
        if unit in known:
            pipe.send({unit: answer(known[unit](), flags.renamed)})
        else:
            pipe.send(answers_of_tests(files[unit]))
        if number % KEPT == KEPT - 1:
            jax.clear_caches()


def report_progress(unit: str, answers: Answers, count: str) -> None:
    """One line for whoever watches."""
    said = answers[unit] if list(answers) == [unit] else {}
    words = said.get("verdict") or said.get("raised") or f"{len(answers)} answers"
    seconds = said.get("seconds", "")
    print(f"{count} {unit} {words[:60]} {seconds}", file=sys.stderr, flush=True)


def write(flags: Flags, units: list[str], found: dict[str, Answers]) -> None:
    """All answers so far; the file is whole at any time."""
    if flags.out is None:
        return
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    versions = {"jax": jax.__version__, "numpy": np.__version__}
    text = json.dumps({"versions": versions, "cases": in_order(units, found)}, indent=1)
    part = flags.out.with_name(flags.out.name + ".part")
    part.write_text(text)
    part.replace(flags.out)


def in_order(units: list[str], found: dict[str, Answers]) -> Answers:
    """By case, in the order of the cases, whichever process was first."""
    return {k: v for unit in units for k, v in found.get(unit, {}).items()}


# The comparison.


class Difference(NamedTuple):
    """One thing that is said of a row, or of the whole report, before and after."""

    what: str
    row: str
    before: str
    after: str


def differences(before: Answer, after: Answer) -> Iterator[Difference]:
    """All that differs between two answers to one question."""
    errors = [ends(answer.get("raised", "")) for answer in (before, after)]
    if any(errors):
        if errors[0] != errors[1]:
            yield Difference("raised", "", *(str(x or "a report") for x in errors))
        return
    for what in ("verdict", "passed", *SAID, "evaluations"):
        if before[what] != after[what]:
            yield Difference(what, "", str(before[what]), str(after[what]))
    for row in dict.fromkeys([*before["rows"], *after["rows"]]):
        one, other = before["rows"].get(row), after["rows"].get(row)
        if one is None or other is None:
            said = (x["verdict"] if x else "absent" for x in (one, other))
            yield Difference("row", row, *said)
            continue
        for what in one.keys() & other.keys() & {*DECIDED, "resolution"}:
            pair = str(one[what]), str(other[what])
            if change(*pair) > FINER if what == "resolution" else pair[0] != pair[1]:
                yield Difference(what, row, *pair)


def ends(text: str) -> str:
    """The first and the last line: a traceback between them is not compared."""
    lines = text.strip().splitlines()
    return " … ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else ""


def change(before: str, after: str) -> float:
    """By what factor two numbers differ; infinity where one is no number or 0."""
    if before == after:
        return 1.0
    one, other = float(before), float(after)
    if not (0 < one < math.inf and 0 < other < math.inf):
        return math.inf
    return max(one / other, other / one)


def all_differences(
    before: Answers, after: Answers, others: list[Answers]
) -> tuple[list[tuple[str, Difference]], int]:
    """Of every case; less what differs among the earlier runs, and how many these are.

    In the order of the cases.
    """
    found: list[tuple[str, Difference]] = []
    left_out = 0
    for case in after:
        if case not in before:
            continue
        unstable = {
            (x.what, x.row)
            for other in others
            for x in differences(before[case], other.get(case, before[case]))
        }
        for x in sorted(differences(before[case], after[case])):
            if (x.what, x.row) in unstable:
                left_out += 1
            else:
                found.append((case, x))
    return found, left_out


def print_differences(before: Answers, after: Answers, others: list[Answers]) -> int:
    """Every difference from an earlier run; how many are of what is decided."""
    found, left_out = all_differences(before, after, others)
    decided = [x for x in found if x[1].what not in (*SAID, *COUNTED)]
    said = [x for x in found if x[1].what in SAID]
    for case, difference in decided:
        print_difference(case, difference)
    missing = print_missing(before, after)
    print(f"{len(said)} differences of {', '.join(SAID)}")
    for case, difference in said:
        print_difference(case, difference)
    for what in COUNTED:
        print_changes(what, [x for x in found if x[1].what == what])
    both = [case for case in after if case in before]
    totals = [sum(x[c].get("evaluations", 0) for c in both) for x in (before, after)]
    print("evaluations of all: {} -> {}".format(*totals))
    if left_out:
        print(f"{left_out} differences left out: the earlier runs differ there too")
    agreeing = sum(is_place_of_agreement(before[case], x) for case, x in decided)
    print(
        f"{len(both)} cases compared: {len(decided)} differences of what is decided, "
        f"{agreeing} of them only where an agreeing leaf errs most"
    )
    return len(decided) + missing


def is_place_of_agreement(before: Answer, difference: Difference) -> bool:
    """Whether it is only the place of the largest rounding error."""
    what, row, *_ = difference
    return what == "place" and before["rows"][row]["verdict"] == "AGREE"


def print_difference(case: str, difference: Difference) -> None:
    """One line, so that it can be searched."""
    what, row, before, after = (" ".join(text.split()) for text in difference)
    print(f"{what:8} {case}, {row or 'report'}: {before} -> {after}")


def print_missing(before: Answers, after: Answers) -> int:
    """What was asked before and not now, or the reverse; how many ought to be there."""
    sources = {case.split("/")[0] for case in after}
    missing = [x for x in before if x not in after and x.split("/")[0] in sources]
    for case in missing:
        print(f"missing  {case}")
    left_out = len(before.keys() - after.keys()) - len(missing)
    if left_out:
        print(f"{left_out} cases of sources that were not asked")
    new = [case for case in after if case not in before]
    if new:
        print(f"{len(new)} new cases: {', '.join(new[:LISTED])}")
    return len(missing)


def print_changes(what: str, found: list[tuple[str, Difference]]) -> None:
    """How many numbers changed, and the largest changes."""
    largest = sorted(found, key=lambda x: -change(x[1].before, x[1].after))
    print(
        f"{len(found)} changes of {what}; the largest:"
        if found
        else f"no change of {what}"
    )
    for case, difference in largest[:LISTED]:
        print_difference(case, difference)


def print_renamed(answers: Answers) -> int:
    """What other names change; how many of these are of named candidates."""
    bad = 0
    asked = {case: x["renamed"] for case, x in answers.items() if "renamed" in x}
    for case, renamed in asked.items():
        for line in renamed["lines"]:
            print_difference(case, Difference(*line))
        bad += len(renamed["lines"]) if renamed["counts"] else 0
    named = sum(renamed["counts"] for renamed in asked.values())
    print(
        f"{len(asked)} gradients asked by other names: {bad} differences in the {named}"
        " that have names"
    )
    return bad


def summary(answers: Answers) -> str:
    """How many cases, and their verdicts."""
    verdicts = Counter(x.get("verdict", "raised") for x in answers.values())
    counts = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
    return f"{len(answers)} cases: {counts}"


if __name__ == "__main__":
    main()
