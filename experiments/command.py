"""A script as a command: its flags from a dataclass, an expected error in one line."""

import io
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from difflib import get_close_matches
from itertools import dropwhile, groupby, takewhile
from pathlib import Path
from textwrap import fill
from typing import Any, NoReturn, TypeVar

import tyro

Flags = TypeVar("Flags")

EXPECTED = (OSError, TypeError, ValueError, FloatingPointError)
"""What a wrong flag, a file or a learning rate ends in."""

WIDEST = 88
"""Columns of a paragraph, however wide the terminal is."""

MOST_NAMED = 5
"""So many choices are named all; of more, the one that comes near."""

FRAME = "│╭╮╰╯─|+- "
"""What tyro draws around its words; a line of it stands between them and its hints."""


def command(
    kind: Callable[..., Flags], description: str | None, run: Callable[[Flags], Any]
) -> Any:
    """What `run` gives of the flags, or an exit code above 0 and one line."""
    flags = parsed(kind, description)
    try:
        found = run(flags)
        sys.stdout.flush()
        return found
    except BrokenPipeError:
        _let_go()
    except EXPECTED as error:
        sys.exit(f"error: {error}")


def parsed(kind: Callable[..., Flags], description: str | None) -> Flags:
    """The flags of the command line; wrong ones are one line."""
    said, shown = io.StringIO(), io.TextIOWrapper(io.BytesIO(), "utf-8")
    try:
        with redirect_stderr(said), redirect_stdout(shown):
            flags = tyro.cli(kind, description=description)
    except SystemExit as end:
        if not end.code:
            shown.seek(0)
            _show(shown.read())
            raise
        _, *lines = (line.strip("│| ") for line in said.getvalue().splitlines())
        below_title = dropwhile(_is_rule, lines)
        words = takewhile(lambda line: not _is_rule(line), below_title)
        sys.exit(f"error: {_shortened(' '.join(words))}; see --help")
    out = getattr(flags, "out", None)
    if isinstance(out, Path) and (fault := _fault_of(out)):
        sys.exit(f"error: --out: {out} {fault}; name another folder")
    return flags


def _fault_of(out: Path) -> str:
    """Why nothing can be written there, which is tried; empty if it can be."""
    if out.exists() and not out.is_dir():
        return "is a file"
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        return "" if os.access(out, os.W_OK) else "cannot be written to"
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    finally:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()


def _show(text: str) -> None:
    """--help, its prose in lines that a terminal has room for."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    parts = list[str]()
    for is_prose, same in groupby(text.splitlines(), _is_prose):
        lines = list(same)
        parts.append(fill(" ".join(lines), width) if is_prose else "\n".join(lines))
    try:
        print("\n".join(parts), flush=True)
    except BrokenPipeError:
        _let_go()


def _is_prose(line: str) -> bool:
    return line[:1] not in ("", " ", "│", "╭", "╰")


def _let_go() -> NoReturn:
    """Whoever read the output, `head` as a rule, has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _shortened(words: str) -> str:
    """What is wrong, with what comes near it in the place of all there is."""
    found = re.match(r"invalid choice '(.*)' for argument '(.*?)'.*\((.*)\)", words)
    if not found:
        return words.rstrip(".")
    given, flag, there = found.groups()
    known = sorted(set(re.findall(r"'([^']*)'", there)) - {"None"})
    fix, near = f": choose from {', '.join(known)}", get_close_matches(given, known, 1)
    if len(known) > MOST_NAMED:
        fix = f": did you mean {near[0]}?" if near else f" among its {len(known)}"
    return f"{flag}: there is no '{given}'{fix}"


def _is_rule(line: str) -> bool:
    return not line.strip(FRAME)
