"""A script as a command: its flags from a dataclass, an expected error in one line."""

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from itertools import dropwhile, takewhile
from typing import Any, TypeVar

import tyro

Flags = TypeVar("Flags")

EXPECTED = (OSError, TypeError, ValueError, FloatingPointError)
"""What a wrong flag, a file or a learning rate ends in."""

FRAME = "│╭╮╰╯─|+- "
"""What tyro draws around its words; a line of it stands between them and its hints."""


def command(
    kind: Callable[..., Flags], description: str | None, run: Callable[[Flags], Any]
) -> Any:
    """What `run` gives of the flags, or an exit code above 0 and one line."""
    flags = parsed(kind, description)
    try:
        return run(flags)
    except EXPECTED as error:
        sys.exit(f"error: {error}")


def parsed(kind: Callable[..., Flags], description: str | None) -> Flags:
    """The flags of the command line; wrong ones are one line."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(kind, description=description)
    except SystemExit as end:
        if not end.code:
            raise
        _, *lines = (line.strip("│| ") for line in said.getvalue().splitlines())
        below_title = dropwhile(_is_rule, lines)
        words = takewhile(lambda line: not _is_rule(line), below_title)
        sys.exit(f"error: {' '.join(words)}; see --help")


def _is_rule(line: str) -> bool:
    return not line.strip(FRAME)
