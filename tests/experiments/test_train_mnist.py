"""The main job and the reading of digits: what they print, write, resume and refuse."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load

from experiments import predict_digits, train_mnist
from experiments.main_job import watcher
from experiments.main_job.folder import locked, write_whole
from jaxnet.mnist import load_mnist
from jaxnet.training import History
from jaxnet.training.checkpoint import load_checkpoint, load_params

Run = Callable[..., list[str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a script's main with these flags; the lines it prints."""

    def lines(script: Any, *flags: Any) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, flags)])
        script.main()
        return capsys.readouterr().out.splitlines()

    return lines


def metrics(out: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def same_checkpoints(one: Path, other: Path) -> bool:
    """Whether the newest files hold the same arrays, bit for bit."""
    arrays = [load(load_params(out)[2].read_bytes()) for out in (one, other)]
    return arrays[0].keys() == arrays[1].keys() and all(
        np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0]
    )


@pytest.mark.slow
def test_quick_run_writes_all_it_says(run: Run, tmp_path: Path) -> None:
    """A table, a checkpoint, metrics and a figure, with the same accuracies."""
    lines = run(train_mnist, "--quick", "--out", tmp_path)
    rows = [line.split() for line in lines if line[:5].strip().isdigit()]
    assert [int(row[0]) for row in rows] == [0, 50, 100, 150]
    written = metrics(tmp_path)
    for row, found in zip(rows, written, strict=True):
        assert int(row[0]) == found["step"]
        assert row[1:3] == [
            f"{found[name]:.4f}" for name in ("train_accuracy", "test_accuracy")
        ]
    assert written[0]["loss"] is None
    assert written[-1]["loss"] < np.log(10)
    assert lines[-2] == f"test accuracy after 150 steps: {rows[-1][2]}"
    assert lines[-1] == "written: " + ", ".join(
        str(tmp_path / name)
        for name in ("step-00000150.safetensors", "metrics.jsonl", "accuracy.png")
    )
    assert len(list(tmp_path.glob("step-*"))) == 3
    with Image.open(tmp_path / "accuracy.png") as figure:
        assert np.asarray(figure).std() > 0


def test_blog_numbers_stand_beside_ours() -> None:
    """Nine rows of them, at the blog's steps; none beside other steps."""
    shares = np.full(10, 0.5, np.float32)
    steps = np.array([*range(0, 5400, 600), 5000])
    losses = np.zeros(5000, np.float32)
    printed = []
    for row in range(1, 11):
        history = History(600, steps[:row], shares[:row], shares[:row], losses)
        printed.append(watcher.table_row(history).split())
    assert [row[0] for row in printed] == [str(step) for step in steps]
    assert [len(row) for row in printed] == [5] * 9 + [3]
    assert printed[0][3:] == ["0.0974", "0.0982"]
    assert printed[8][3:] == ["0.9261", "0.9282"]
    other = History(50, steps[:2], shares[:2], shares[:2], losses[:600])
    assert len(watcher.table_row(other).split()) == 3


@pytest.mark.slow
def test_stopped_and_resumed_is_uninterrupted(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C saves and says how to go on, which ends as a run that never stopped."""
    flags = ["--quick", "--no-figure", "--seed", "3"]
    run(train_mnist, *flags, "--out", tmp_path / "whole")

    def is_asked_to_stop(watcher: Any) -> bool:
        return int(watcher.latest[0].step) == 100

    out = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(train_mnist.Watcher, "is_asked_to_stop", is_asked_to_stop)
        monkeypatch.setattr(sys, "argv", ["script.py", *flags, "--out", str(out)])
        train_mnist.main()
    message = capsys.readouterr().err
    assert "step-00000100.safetensors" in message
    assert f"python script.py {' '.join(flags)} --out {out} --resume" in message
    lines = run(train_mnist, *flags, "--out", out, "--resume")
    assert any("resumed from" in line for line in lines)
    assert same_checkpoints(out, tmp_path / "whole")
    assert metrics(out) == metrics(tmp_path / "whole")
    run(train_mnist, *flags[:-1], "4", "--out", tmp_path / "other")
    assert not same_checkpoints(out, tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data", "/nowhere"], "error: /nowhere/train-images-idx3-ubyte"),
        (["--resume"], "no checkpoint here"),
        (["--batch-size", "9999"], "`batch_size`: expected at most"),
        (["--devices", "0"], "`devices`: expected 1 to 4096, got 0"),
        (["--devices", "99999999999"], "`devices`: expected 1 to 4096, got 9999"),
        (["--seed", str(2**63)], "`seed`"),
        (["--learning-rate", "nan"], "`learning_rate`: expected a finite"),
        (["--learning-rate", "-1"], "`learning_rate`: expected a finite"),
        (["--hidden", "999999999"], "`hidden`: expected 1 to 1073741824 parameters"),
        (["--keep", "0"], "`keep`"),
        (["--num-steps", "-1"], "`num_steps`"),
        (["--coordinator", "here"], "`coordinator`: expected HOST:PORT"),
        (["--num-processes", "2"], "`num_processes`: expected a coordinator, got 2"),
        (["--coordinator", "here:65536"], "`coordinator`: expected HOST:PORT"),
        (["--data", "nowhere\0"], "nowhere"),
        (["--out", "/dev/null/out"], "/dev/null/out"),
        (["--hidden", "0"], "layer_sizes"),
    ],
)
def test_refused_in_one_line(
    run: Run, tmp_path: Path, flags: list[str], words: str
) -> None:
    """What cannot be is one line, and no traceback."""
    with pytest.raises(SystemExit, match=words) as error:
        run(train_mnist, "--quick", "--out", tmp_path, *flags)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_resume_of_another_run_lists_the_differences(run: Run, tmp_path: Path) -> None:
    """Another seed and rate are named, and the checkpoint is left as it was."""
    flags = ["--quick", "--no-figure", "--num-steps", "10", "--out", tmp_path]
    run(train_mnist, *flags)
    before = load_params(tmp_path)[2].read_bytes()
    with pytest.raises(SystemExit, match="seed was 0, is 1") as error:
        run(train_mnist, *flags, "--seed", "1", "--learning-rate", "1", "--resume")
    assert "learning_rate was 0.1, is 1.0" in str(error.value)
    assert load_params(tmp_path)[2].read_bytes() == before
    run(train_mnist, *flags, "--resume", "--num-steps", "20")
    assert metrics(tmp_path)[-1]["step"] == 20


@pytest.mark.slow
def test_a_new_run_replaces_no_other(run: Run, tmp_path: Path) -> None:
    """Its own result it may; another seed's or length's only with --overwrite."""
    flags = ["--quick", "--no-figure", "--num-steps", "10", "--out", tmp_path]
    run(train_mnist, *flags)
    before = load_params(tmp_path)[2].read_bytes()
    shutil.copytree(tmp_path, tmp_path / "copy")
    for others, words in (
        (["--seed", "1"], "seed was 0, is 1"),
        (["--num-steps", "20"], "this run at step 10, not 20; go on by --resume"),
        (["--num-steps", "5"], "this run at step 10, not 5"),
    ):
        with pytest.raises(SystemExit, match=words) as error:
            run(train_mnist, *flags, *others)
        assert "--overwrite" in str(error.value)
    assert load_params(tmp_path)[2].read_bytes() == before
    assert len(list(tmp_path.glob("step-*"))) == 2
    run(train_mnist, *flags)
    assert same_checkpoints(tmp_path, tmp_path / "copy")
    run(train_mnist, *flags, "--seed", "1", "--overwrite")
    assert not same_checkpoints(tmp_path, tmp_path / "copy")
    with pytest.raises(SystemExit, match="--resume or --overwrite, got both"):
        run(train_mnist, *flags, "--resume", "--overwrite")


@pytest.mark.slow
def test_a_folder_of_damaged_checkpoints_is_not_free(run: Run, tmp_path: Path) -> None:
    """What cannot be read may be worth something."""
    (tmp_path / "step-00000010.safetensors").write_bytes(b"half a checkpoint")
    flags = ["--quick", "--no-figure", "--num-steps", "10", "--out", tmp_path]
    with pytest.raises(SystemExit, match=r"damaged checkpoint .* or pass --overwrite"):
        run(train_mnist, *flags)
    run(train_mnist, *flags, "--overwrite")


def test_a_folder_that_is_written_to_is_refused(run: Run, tmp_path: Path) -> None:
    """The holder of the lock is named; when it is gone, the folder is free."""
    flags = ["--quick", "--no-figure", "--num-steps", "10", "--out", tmp_path]
    with locked(tmp_path):
        words = (
            f"{tmp_path}: process {os.getpid()} of .* writes to it; .* another --out"
        )
        for more in ([], ["--resume"], ["--overwrite"]):
            with pytest.raises(SystemExit, match=words):
                run(train_mnist, *flags, *more)
        assert not list(tmp_path.glob("step-*"))
    run(train_mnist, *flags)


def test_quick_runs_have_a_folder_of_their_own() -> None:
    """Unless one is named."""
    flags = train_mnist.Flags
    assert flags().folder == Path("out")
    assert flags(quick=True).folder == Path("out/quick")
    assert flags(quick=True, out=Path("a")).folder == Path("a")


FILES = [".lock", "metrics.jsonl", "accuracy.png", "step-00000010.safetensors"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_not_written_through(
    run: Run, tmp_path: Path, name: str, kind: str
) -> None:
    """A link, pipe or folder where a file is to be is named before the first step."""
    out, target = tmp_path / "out", tmp_path / "target"
    out.mkdir()
    target.write_text("precious")
    if kind == "link":
        (out / name).symlink_to(target)
    else:
        {"pipe": os.mkfifo, "folder": os.mkdir}[kind](out / name)
    with pytest.raises(SystemExit, match=f"{name}: expected a file or nothing"):
        run(train_mnist, "--quick", "--num-steps", "10", "--out", out)
    assert target.read_text() == "precious"
    assert not [path for path in out.glob("step-*") if path.name != name]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails halfway leaves the file as it was, and no remains."""
    path = tmp_path / "metrics.jsonl"
    write_whole(path, lambda path: path.write_text("whole"))

    def fails(path: Path) -> None:
        path.write_text("ha")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_whole(path, fails)
    assert path.read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_data_of_other_files_are_another_run() -> None:
    """One grey level of a looked-at image changes the configuration; order does too."""
    data = load_mnist(as_bytes=True)
    flags = train_mnist.Flags()
    before = train_mnist.configuration(flags, data)
    data.test_images[97, 400] ^= 1
    assert train_mnist.configuration(flags, data) != before
    data.test_images[97, 400] ^= 1
    assert train_mnist.configuration(flags, data) == before


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of a small run."""
    out = tmp_path_factory.mktemp("trained")
    flags = train_mnist.Flags(out=out, quick=True, figure=False)
    train_mnist.run(flags, None)
    return out


@pytest.mark.slow
def test_digits_are_read(run: Run, network: Path, tmp_path: Path) -> None:
    """A test image and its PNG, light on dark or dark on light, give one answer."""
    grey = load_mnist(as_bytes=True).test_images[3].reshape(28, 28)
    Image.fromarray(grey).save(tmp_path / "light.png")
    Image.fromarray(255 - grey).resize((56, 56), 0).save(tmp_path / "dark.png")
    images = ["--images", tmp_path / "light.png", tmp_path / "dark.png"]
    out = ["--checkpoint", network, "--out", tmp_path]
    lines = run(predict_digits, *images, "--test-indices", 3, 4, *out)
    answers = [line.split(": ")[1] for line in lines[1:5]]
    assert answers[0] == answers[1] == answers[2] != answers[3]
    assert "test image 3 (a 0)" in lines[3]
    shares = [float(x) for x in answers[0].split("(")[1].rstrip(")").split()]
    assert sum(shares) == pytest.approx(1, abs=5e-2)
    assert int(answers[0][0]) == int(np.argmax(shares))
    with Image.open(tmp_path / "digits.png") as figure:
        assert np.asarray(figure).std() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--checkpoint", "/nowhere"], r"train_mnist\.py"),
        (["--test-indices", "10000"], "expected 0…9999, got 10000"),
        (["--test-indices", "-1"], "expected 0…9999, got -1"),
        (["--images", "/nowhere.png"], "a file, got nothing there"),
        (["--images", "/"], "a file, got a folder"),
        (["--images", __file__], "not a readable PNG file"),
    ],
)
def test_digits_refused_in_one_line(
    run: Run, network: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    """A missing network, index or image is one line."""
    with pytest.raises(SystemExit, match=words) as error:
        run(predict_digits, "--checkpoint", network, "--out", tmp_path, *flags)
    assert "\n" not in str(error.value)


def test_checkpoint_names_its_run(network: Path) -> None:
    """The configuration says what the run was made of."""
    fresh = train_mnist.Flags(quick=True)
    start = train_mnist.fresh_state(fresh)
    data = train_mnist.load_data(fresh)
    config = train_mnist.configuration(fresh, data)
    assert load_checkpoint(network, start, config).state.step == 150


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "nonsense"])
def test_a_platform_that_is_not_there_is_one_line(
    platform: str, tmp_path: Path
) -> None:
    """Which one, and what JAX says; nothing is written but the lock."""
    words = [sys.executable, "experiments/train_mnist.py", "--quick"]
    done = subprocess.run(
        [*words, "--out", str(tmp_path)],
        env={**os.environ, "JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"backend '{platform}'" in line
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}
