"""Figures are returned, shown by a notebook as pictures, and saved where asked for."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxnet import History, check_gradients, plots

pytestmark = pytest.mark.slow

PNG = b"\x89PNG\r\n\x1a\n"
SHARES = np.array([0.1, 0.8], np.float32)
HISTORY = History(2, np.array([0, 2]), SHARES, SHARES, np.ones(2, np.float32))
IMAGES = np.random.default_rng(0).random((2, 9))


def figures(path):
    """One of each kind."""
    report = check_gradients(lambda x: jnp.sum(x**2), jnp.ones(2), np.array([2.0, 3.0]))
    answers = np.array([[0.1, 0.9], [0.2, 0.8]])
    return [
        plots.training_curves(HISTORY, path),
        plots.gradient_images({"backprop": IMAGES}, [3, 7], path),
        plots.predicted_digits(IMAGES, answers, np.array([1, 0]), path),
        plots.descent_on_contours(lambda x, y: x**2 + y**2, np.eye(2), path),
        plots.verified_leaves({"a report": report}, path),
    ]


def test_each_is_a_picture_and_a_file_if_asked(tmp_path):
    """With no path nothing is written; with one, what a notebook shows."""
    for shown in figures(None):
        assert shown._repr_png_().startswith(PNG)
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "new" / "figure.png"
    figures(path)
    assert path.read_bytes().startswith(PNG)


def test_a_wrong_answer_is_red():
    """Its title; the true digit is green in either case."""
    right, wrong, *bars = figures(None)[2].axes
    assert [right.get_title(), wrong.get_title()] == [
        "1: 90.0%\nlabel 1",
        "1: 80.0%\nlabel 0",
    ]
    assert [axes.title.get_color() for axes in (right, wrong)] == ["black", "C3"]
    colours = [[to_hex(bar.get_facecolor()) for bar in b.patches] for b in bars]
    green, red, blue = (to_hex(name) for name in ("C2", "C3", "C0"))
    assert colours == [[blue, green], [green, red]]


def test_another_run_stands_beside_it():
    """The blog's curve is drawn, point by point."""
    blog = np.array([[0.1, 0.2], [0.7, 0.6]])
    lines = plots.training_curves(HISTORY, blog=blog).axes[1].lines
    assert [line.get_label() for line in lines[2:]] == [
        "the blog, train",
        "the blog, test",
    ]
    assert (
        np.array([line.get_ydata() for line in lines[2:]]).T.tolist() == blog.tolist()
    )
    assert len(plots.training_curves(HISTORY).axes[1].lines) == 2


def test_a_wrong_leaf_is_red_and_a_shape_is_a_word():
    """The error of the wrong leaf, and the verdict of one that has no error."""
    report = check_gradients(
        lambda x: jnp.sum(x**2),
        jnp.ones(2),
        {"far": np.array([2.0, 3.0]), "long": np.ones(3)},
    )
    left = plots.verified_leaves({"a report": report}).axes[0]
    wrong = next(line for line in left.lines if line.get_color() == "C3")
    assert np.isfinite(wrong.get_xdata()).sum() == 1
    assert [text.get_text() for text in left.texts] == ["MALFORMED"]
