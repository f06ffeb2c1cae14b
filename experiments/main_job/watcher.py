"""Who watches a run: prints and writes each new row, and keeps the latest state."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.main_job import signals
from experiments.main_job.flags import Flags, num_steps
from experiments.main_job.folder import FIGURE, METRICS, write_whole
from jaxnet.devices import gathered
from jaxnet.training import History, State
from jaxnet.training.checkpoint import load_checkpoint, save_checkpoint

BLOG = (
    (0.0974, 0.0982),
    (0.7766, 0.7832),
    (0.8754, 0.8803),
    (0.8972, 0.9006),
    (0.9066, 0.9095),
    (0.9131, 0.9146),
    (0.9182, 0.9193),
    (0.9235, 0.9253),
    (0.9261, 0.9282),
)
"""Training and test accuracy that the blog printed at the start of each epoch."""

BLOG_EPOCH = 600
"""Steps of the blog's epoch."""


class Watcher:
    """The callback: prints and writes each new row, and keeps the latest state.

    Of many processes, the first does all of that.
    """

    def __init__(
        self, flags: Flags, config: dict[str, Any], everyone: Mesh | None = None
    ) -> None:
        self.flags, self.config, self.everyone = flags, config, everyone
        self.latest: tuple[State, History] | None = None
        self.paths: list[Path] = []
        self.is_first = jax.process_index() == 0
        self.bar = progress_bar(num_steps(flags)) if self.is_first else None
        self.say("           ours              the blog")
        self.say(" step   train    test     train    test")

    def resumed(self, like: State) -> tuple[State, History]:
        """Where the newest checkpoint left off."""
        state, history, _, path = load_checkpoint(self.flags.folder, like, self.config)
        self.say(f"resumed from {path}")
        return state, history

    def __call__(self, state: State, history: History) -> None:
        self.latest = state, history
        step = int(state.step)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
        if step in history.steps[-1:]:
            self.say(table_row(history))
            self.save()
        if step < num_steps(self.flags) and self.is_asked_to_stop():
            raise KeyboardInterrupt

    def is_asked_to_stop(self) -> bool:
        """Whether any process is: all of them stop at one step."""
        if self.everyone is None:
            return signals.asked()
        asked = np.array([signals.asked()], np.uint8)
        return any(row.any() for row in gathered(asked, self.everyone).values())

    def save(self) -> None:
        """Write the checkpoint and the metrics."""
        if self.latest is not None and self.is_first:
            out, keep = self.flags.folder, self.flags.keep
            checkpoint = save_checkpoint(out, *self.latest, self.config, keep)
            metrics = write_metrics(out / METRICS, self.latest[1])
            self.paths = [checkpoint, metrics]

    def stopped(self) -> str:
        """Save what there is, and say how to go on."""
        self.save()
        if self.latest is None:
            return "stopped before the first step; nothing is written"
        where = self.paths[0] if self.paths else self.flags.folder
        step = int(self.latest[0].step)
        how = f"go on by {signals.command()}"
        return f"stopped at step {step}; {where} is written: {how}"

    def finished(self) -> None:
        """Say what came of it, draw it, and name the files."""
        assert self.latest is not None
        _, history = self.latest
        test, step = history.test_accuracy[-1], history.steps[-1]
        self.say(f"test accuracy after {step} steps: {test:.4f}")
        if self.flags.figure and self.is_first:
            from jaxnet.plots import training_curves

            path = self.flags.folder / FIGURE
            blog = np.array(BLOG) if history.steps_per_epoch == BLOG_EPOCH else None
            draw = partial(training_curves, history, blog=blog)
            self.paths.append(write_whole(path, draw))
        self.say("written: " + ", ".join(map(str, self.paths)))
        if self.bar is not None:
            self.bar.close()

    def say(self, line: str) -> None:
        """Print, above the progress bar if there is one."""
        if self.bar is not None:
            self.bar.write(line)
        elif self.is_first:
            print(line, flush=True)


def progress_bar(total: int) -> Any:
    """A bar with the time left, on a terminal only."""
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    return tqdm(total=total, unit="step", leave=False)


def table_row(history: History) -> str:
    """The newest accuracies beside the blog's, where it has that step."""
    step, count = history.steps[-1], len(history.steps) - 1
    numbers = [history.train_accuracy[-1], history.test_accuracy[-1]]
    is_theirs = history.steps_per_epoch == BLOG_EPOCH and step == BLOG_EPOCH * count
    if is_theirs and count < len(BLOG):
        numbers.extend(BLOG[count])
    ours, blog = (" ".join(f"{x:7.4f}" for x in numbers[i : i + 2]) for i in (0, 2))
    return f"{step:5d} {ours}   {blog}".rstrip()


def write_metrics(path: Path, history: History) -> Path:
    """One line of JSON for each row; the loss is the mean since the row before."""
    lines = []
    for row, step in enumerate(history.steps):
        since = history.losses[history.steps[row - 1] if row else 0 : step]
        metrics = {
            "step": int(step),
            "epoch": float(step / history.steps_per_epoch),
            "loss": float(since.mean()) if len(since) else None,
            "train_accuracy": float(history.train_accuracy[row]),
            "test_accuracy": float(history.test_accuracy[row]),
        }
        lines.append(json.dumps(metrics) + "\n")
    return write_whole(path, lambda path: path.write_text("".join(lines)))
