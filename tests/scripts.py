"""The command line of an experiment, read in this process."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
SCRIPTS = [
    p
    for p in sorted(EXPERIMENTS.glob("*.py"))
    if '__name__ == "__main__"' in p.read_text()
]


class _Parsed(BaseException):
    """Carries flags past a script's own handlers, before anything is run."""

    def __init__(self, flags: Any) -> None:
        self.flags = flags


def flags_of(name: str, *words: str) -> Any:
    """The flags that a script makes of these words; it does not run.

    Raises:
        SystemExit: as from the script: the words are wrong, or ask for --help.
    """
    parse = tyro.cli

    def only_parse(*args: Any, **options: Any) -> None:
        raise _Parsed(parse(*args, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tyro, "cli", only_parse)
        patch.setattr(sys, "argv", [f"{name}.py", *words])
        try:
            importlib.import_module(f"experiments.{name}").main()
        except _Parsed as parsed:
            return parsed.flags
    raise AssertionError(f"{name} ran without reading its flags")
