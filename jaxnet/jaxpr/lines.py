"""The lines that made equations and raised errors, in words."""

import sysconfig
from collections.abc import Iterable
from pathlib import Path
from traceback import walk_tb
from typing import Any

from jaxnet.input_checks import first_line
from jaxnet.jaxpr.reader import enclosing

MOST_FRAMES = 32
"""How many callers of an equation are looked at for one that is the user's."""

IN_JAX = "/jax/_src/"
"""Stands in the path of what JAX itself wrote."""

VERIFIER = tuple(
    str(Path(__file__).parents[1] / x)
    for x in ("testing", "verification", "jaxpr", "devices.py", "float64.py")
)
"""Where lines stand that are not the user's…"""

PYTHON = (sysconfig.get_path("stdlib"), "<frozen")
"""…nor Python's own, as those of a decorator."""

INTERACTIVE = ("<stdin>", "<console>", "<python-input", "<ipython-input")
"""What Python calls the file of what is typed in."""


def source_line(equation: Any) -> str:
    """File, line and function that made an equation; empty where unknown.

    The innermost that is not the verifier's own.
    """
    return next(iter(source_lines(equation)), "")


def source_lines(equation: Any) -> list[str]:
    """The same with all that called it, the innermost first."""
    from jax.extend import source_info_util  # 80 ms, wanted by few runs

    frames = source_info_util.summarize(equation.source_info, num_frames=MOST_FRAMES)
    lines = (line for line in reversed(frames.split("\n")) if _is_in_a_file(line))
    return [line for line in lines if line and not line.startswith(VERIFIER)]


def _is_in_a_file(line: str) -> bool:
    """Or typed in; not made by a library as it goes."""
    return line[:1] != "<" or line.startswith(INTERACTIVE)


def said(error: Exception) -> str:
    """What an error says, and the line that is neither JAX's nor the verifier's."""
    lines = [
        f"{frame.f_code.co_filename}:{number}"
        for frame, number in walk_tb(error.__traceback__)
        if IN_JAX not in frame.f_code.co_filename
        and not is_pythons(frame.f_code.co_filename)
        and not frame.f_code.co_filename.startswith(VERIFIER)
    ]
    return at_line(first_line(error).rstrip("."), lines[-1] if lines else "")


def is_pythons(file: str) -> bool:
    """Whether a file is Python's own, and no library that was installed beside it."""
    return file.startswith(PYTHON) and "-packages" not in file


def at_line(words: str, line: str) -> str:
    """Words, with a source line if it is known."""
    return f"{words} at {line}" if line else words


def described(equation: Any, caller: Any = None) -> str:
    """The primitive's name and its source line, or that of the equation it is in."""
    line = source_line(equation) or (source_line(caller) if caller else "")
    return at_line(f"`{equation.primitive.name}`", line)


def described_once(jaxpr: Any, equations: Iterable[Any]) -> list[str]:
    """Equations of a program, with the line of the innermost around that has one."""
    outer, words = enclosing(jaxpr), list[str]()
    for equation in equations:
        around = equation
        while around is not None and not source_line(around):
            around = outer.get(id(around))
        words.append(described(equation, around))
    return list(dict.fromkeys(words))
