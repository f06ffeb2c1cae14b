"""Who waits over a second is told for what; who does not is told nothing."""

from contextlib import redirect_stderr
from io import StringIO
from threading import Event

import pytest

from experiments import patience


class Written(StringIO):
    """Standard error, and a signal that something was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.event = Event()

    def write(self, text: str) -> int:
        """Tell the test that something was said."""
        self.event.set()
        return super().write(text)


def test_a_slow_block_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, while the block still runs."""
    written = Written()
    monkeypatch.setattr(patience, "PATIENCE", 0.0)
    with redirect_stderr(written), patience.said_if_slow("compiling …"):
        assert written.event.wait(timeout=60)
    assert written.getvalue() == "compiling …\n"


def test_a_fast_block_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is printed after its end, whether it ended well or not."""
    written = Written()
    monkeypatch.setattr(patience, "PATIENCE", 3600.0)
    with redirect_stderr(written), patience.said_if_slow("compiling …"):
        pass
    waiting = patience.said_if_slow("compiling …")
    with redirect_stderr(written), pytest.raises(KeyError), waiting:
        raise KeyError
    assert not written.event.is_set()
    assert written.getvalue() == ""
