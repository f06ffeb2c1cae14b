"""The wheel and the source distribution hold what they should, and the wheel works."""

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import Distribution, version
from pathlib import Path

import pytest

from jaxnet.mnist import NAMES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
NODES = [
    node
    for path in (ROOT / "jaxnet").rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
]
FROM = {x.module.split(".")[0] for x in NODES if isinstance(x, ast.ImportFrom)}
WHOLE = {a.name for x in NODES if isinstance(x, ast.Import) for a in x.names}
OPTIONAL = {"matplotlib", "pytest", "tqdm"}
"""Imported where they are there, by plots, the plugin and the progress bar."""

IMPORTED = {
    name.split(".")[0]
    for name in FROM | WHOLE
    if name.split(".")[0] not in {*sys.stdlib_module_names, *OPTIONAL, "jaxnet"}
} | {"jaxlib"}
VERSION = version("jaxnet-gradients")
DATA = {f"jaxnet/data/{name}.gz" for name in NAMES}
SMOKE = """
import jax, jaxnet, pathlib, sys
assert pathlib.Path(jaxnet.__file__).is_relative_to(sys.path[1]), jaxnet.__file__
data = jaxnet.load_mnist()
assert data.train_images.shape == (60_000, 784)
batch = data.test_images[:3, 300:350], data.test_labels[:3]
params = jaxnet.init_params(jax.random.key(0), (50, 4, 10))
loss = lambda params: jaxnet.loss(params, *batch)
slopes = jaxnet.gradients.backprop(params, *batch)
jaxnet.check_gradients(loss, params, slopes).raise_if_failed()
wrong = jax.tree.map(lambda leaf: 1.01 * leaf, slopes)
assert not jaxnet.check_gradients(loss, params, wrong).passed
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and a source distribution, made of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    words = ["-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_holds_code_data_and_licences(built: Path) -> None:
    """The modules, the marker of types, MNIST with its notice; no tests, no docs."""
    (wheel,) = built.glob(f"jaxnet_gradients-{VERSION}-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "jaxnet").rglob("*.py")}
    assert modules <= names
    made = {"jaxnet/data/NOTICE", "jaxnet/py.typed", "jaxnet/__init__.pyi"}
    assert {*DATA, *made} <= names
    licences = {name.split("/", 1)[1] for name in names if "/licenses/" in name}
    assert licences == {"licenses/LICENSE", "licenses/jaxnet/data/NOTICE"}
    assert not any(
        name.startswith(("tests/", "experiments/", "docs/")) for name in names
    )


def test_the_wheel_needs_what_the_package_imports(built: Path) -> None:
    """Six packages, and nothing but with an extra; the plugin is known to pytest."""
    (wheel,) = built.glob("*.whl")
    (metadata,) = Distribution.discover(path=[str(wheel)])
    needed = {
        re.split(r"\W", need)[0]
        for need in metadata.requires or ()
        if "extra ==" not in need
    }
    assert needed == {"jax", "jaxlib", "jaxtyping", "numpy", "optax", "safetensors"}
    assert needed == IMPORTED
    (plugin,) = metadata.entry_points.select(group="pytest11")
    assert plugin.value == "jaxnet.pytest_plugin"


def test_the_source_distribution_can_be_tested(built: Path) -> None:
    """It holds the tests, the experiments and what they read, and nothing made."""
    (archive,) = built.glob(f"jaxnet_gradients-{VERSION}.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    wanted = {"tests/conftest.py", "experiments/train_mnist.py", "Makefile", "LICENSE"}
    wanted |= {"docs/fix.md", "docs/cells.py", "mkdocs.yml"}
    assert {*wanted, *DATA, "README.md", "README.ja.md", "CHANGELOG.md"} <= names
    assert not any("__pycache__" in name or ".venv" in name for name in names)


def test_the_version_has_its_changes() -> None:
    """The newest heading of the changelog."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == VERSION


def test_the_wheel_works_from_another_folder(built: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, it finds its data and tells a right gradient from a wrong."""
    (wheel,) = built.glob("*.whl")
    place = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(place)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(1, {str(place)!r}){SMOKE}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
