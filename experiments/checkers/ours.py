"""jaxnet's check_gradients, check_vjp and check_jvp, with nothing set."""

from typing import Any

from experiments.checkers.checker import Answer, Checker, Settings
from experiments.checkers.question import LossTask, Question
from jaxnet.verification import Verdict, check_gradients, check_jvp, check_vjp


def jaxnet() -> Checker:
    """It has no tolerance, so its default is all that is shown."""
    return Checker("jaxnet", "jaxnet", None, _checked)


def _checked(question: Question, subject: Any, settings: Settings) -> Answer:
    task = question.task
    if isinstance(task, LossTask):
        candidates = {"candidate": task.candidate}
        report = check_gradients(task.loss, task.params, candidates, **settings)
    else:
        check = {"vjp": check_vjp, "jvp": check_jvp}[task.mode]
        report = check(task.function, *task.args, **settings)
    worst = report.worst
    note = f"{worst.verdict.value} {worst.place} {worst.cause}".strip()
    failed = {record.verdict for record in report.records if not record.passed}
    undecided = bool(failed) and failed <= {Verdict.UNRESOLVED, Verdict.UNINFORMATIVE}
    return Answer(report.passed, note, report.evaluations, undecided)
