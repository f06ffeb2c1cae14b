"""The pytest plugin: a suite's gradient checks by the verifier, and its custom rules.

    pytest --gradients=jaxnet             # check_grads and its like, by the verifier
    pytest --audit-rules                  # each custom rule that the suite calls
    pytest --gradient-report=out.html     # every check that was made, on one page

JAX is not imported before one of these is asked for.
"""

import pickle
import shlex
import sys
import zlib
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

OURS = str(Path(__file__).parent)
"""Where frames stand that are not the suite's."""

TITLE = "gradients, verified by jaxnet"

REPLACED = {
    "jax.test_util": ("check_grads", "check_vjp", "check_jvp"),
    "chex": ("assert_numerical_grads",),
}
"""What has a drop-in of its name in `jaxnet.testing`."""

FLAGS = ("gradients", "audit_rules", "gradient_report")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flags."""
    group = parser.getgroup("jaxnet", TITLE)
    group.addoption(
        "--gradients",
        choices=("jaxnet",),
        help="check_grads, check_vjp and check_jvp of jax.test_util, and chex's "
        "assert_numerical_grads, by jaxnet's verifier",
    )
    group.addoption(
        "--audit-rules",
        action="store_true",
        help="verify each jax.custom_vjp and jax.custom_jvp that the tests call, at "
        "the values they call it with; a wrong one fails the run",
    )
    parser.addini(
        "intended_rules",
        "rules that --audit-rules is not to judge, by name or as file.py:LINE",
        type="linelist",
    )
    group.addoption(
        "--gradient-report",
        metavar="PATH",
        help="write every check of a gradient to one HTML page",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Before tests are imported: put the verifier in its place.

    A conftest.py has run by then, which may set how JAX is to start.
    """
    path = config.getoption("gradient_report")
    if path and Path(path).is_dir():
        raise pytest.UsageError(f"--gradient-report: {path} is a folder; name a file")
    if any(map(config.getoption, FLAGS)):
        config.pluginmanager.register(Verified(config), "jaxnet-verified")


@pytest.fixture
def gradient_seed(request: pytest.FixtureRequest) -> int:
    """A seed made of the test's id: alone, a test draws what it draws in the suite."""
    return zlib.crc32(request.node.nodeid.encode())


@pytest.fixture
def gradient_key(gradient_seed: int) -> Any:
    """A random key of JAX with that seed."""
    import jax

    return jax.random.key(gradient_seed)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """A failure shows the suite's own frames, and the command that reruns it."""
    if call.excinfo is None:
        return
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "jaxnet":
            vars(module)["__tracebackhide__"] = _says_all
    is_ours = call.excinfo.typename == "GradientMismatch"
    if is_ours or "gradient_seed" in getattr(item, "fixturenames", ()):
        flags = " --gradients=jaxnet" * bool(item.config.getoption("gradients"))
        flags += " --audit-rules" * item.config.getoption("audit_rules")
        rerun = f"rerun: pytest {shlex.quote(item.nodeid)}{flags}"
        item.add_report_section(call.when, "jaxnet", rerun)


def _says_all(error: pytest.ExceptionInfo[BaseException]) -> bool:
    """Whether what is raised says all: a report, or what a caller should write."""
    is_said = error.typename in ("GradientMismatch", "TypeError", "ValueError")
    return is_said and str(error.traceback[-1].path).startswith(OURS)


@dataclass(frozen=True)
class Check:
    """One check that a test asserted; `page` is its report as HTML."""

    test: str
    passed: bool
    page: str
    has_tolerances: bool


class Verified:
    """What is done and seen in one run of pytest in which something is asked for."""

    def __init__(self, config: pytest.Config) -> None:
        from jaxnet.testing.asserted import listeners
        from jaxnet.testing.rules_called import RulesCalled

        self.intended = config.getini("intended_rules")
        self.path: str | None = config.getoption("gradient_report")
        self.made = list[Any]()
        self.checks = list[Check]()
        self.rows = list[Any]()
        is_audit = config.getoption("audit_rules")
        self.rules = RulesCalled(self.intended) if is_audit else None
        stack = ExitStack()
        config.add_cleanup(stack.close)
        listeners.append(self.made.append)
        stack.callback(listeners.clear)
        if config.getoption("gradients"):
            stack.enter_context(replaced())
        if self.rules:
            stack.enter_context(self.rules.recorded())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send what a test asserted with its report, out of a process of xdist too."""
        report = yield
        made = [asdict(_check(item.nodeid, x)) for x in self.made]
        vars(report)["jaxnet_checks"] = made
        self.made.clear()
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Collect it."""
        made = getattr(report, "jaxnet_checks", ())
        self.checks += [Check(**one) for one in made]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Collect the rules that a process of xdist has verified."""
        sent = getattr(node, "workeroutput", {}).get("jaxnet_rules")
        self.rows += pickle.loads(sent) if sent else []

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Verify the rules that were called; write the page."""
        if self.rules:
            self.rows += self.rules.rows()
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["jaxnet_rules"] = pickle.dumps(self.rows)
            return
        if self.rules and any(row.is_wrong for row in self.audit().rules):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        if self.path:
            from jaxnet.verification.report.page import written

            written(self.page(), self.path)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """How many checks were made, and the table of the rules."""
        terminalreporter.section(TITLE)
        wrong = sum(not check.passed for check in self.checks)
        terminalreporter.line(f"{len(self.checks)} checks, {wrong} failed")
        if given := sum(check.has_tolerances for check in self.checks):
            words = f"tolerances or steps were given in {given}: they are not needed"
            terminalreporter.line(words)
        if self.rules:
            audit = self.audit()
            terminalreporter.line(str(audit))
            wrong_rules = [_as_error(row) for row in audit.rules if row.is_wrong]
            terminalreporter.stats.setdefault("error", []).extend(wrong_rules)
            for one in self.not_called():
                words = f"intended_rules: no rule that was called is `{one}`"
                terminalreporter.line(words)
        if self.path:
            terminalreporter.line(f"report: {self.path}")

    def audit(self) -> Any:
        """The rules of all processes, a row each."""
        from jaxnet.testing.rules_called import audit_of

        return audit_of(self.rows)

    def not_called(self) -> list[str]:
        """What is named as intended and is no rule that was called."""
        from jaxnet.verification.function.intended import is_named

        called = [(row.name, (row.rule, *row.lines)) for row in self.rows]
        return [x for x in self.intended if not any(is_named(x, *y) for y in called)]

    def page(self) -> str:
        """The checks and the rules as HTML, those that failed first."""
        from jaxnet.verification.report.page import document, section

        ordered = sorted(self.checks, key=lambda check: check.passed)
        parts = [section(check.test, check.page) for check in ordered]
        if self.rules:
            parts.append(section("custom rules", self.audit().as_html()))
        wrong = sum(not check.passed for check in self.checks)
        return document(f"{len(self.checks)} checks, {wrong} failed", parts)


def replaced() -> ExitStack:
    """The drop-ins in the place of what they are named after, wherever it stands.

    Once that is closed, all is as before.
    """
    import jaxnet.testing

    drop_ins = dict[int, Any]()
    for module, names in REPLACED.items():
        if find_spec(module.partition(".")[0]):
            own = import_module(module)
            drop_ins |= {id(getattr(own, x)): getattr(jaxnet.testing, x) for x in names}
    stack = ExitStack()
    for place in list(sys.modules.values()):
        for name, value in list(getattr(place, "__dict__", {}).items()):
            if ours := drop_ins.get(id(value)):
                stack.enter_context(mock.patch.object(place, name, ours))
    return stack


def _as_error(row: Any) -> pytest.TestReport:
    """A wrong rule, as the last lines of a run count and name it."""
    from jaxnet.verification.report.numbers import from_here

    name = f"the rule of `{row.name}` ({from_here(row.rule)})"
    return pytest.TestReport(name, ("", None, ""), {}, "failed", row.cause, "call")


def _check(test: str, report: Any) -> Check:
    from jaxnet.testing.drop_in import NOT_NEEDED

    notes = getattr(report, "notes", ())
    has_tolerances = any(note.startswith(NOT_NEEDED) for note in notes)
    return Check(test, report.passed, report.as_html(), has_tolerances)
