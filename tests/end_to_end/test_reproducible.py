"""The same request gives the same bytes wherever it is made, and a parity setting leaves the file.

Each side has its own copy of the pipeline (one as a checkout, one as a wheel unpacks), its own path
to the installed packages (which is what another virtual environment changes), folder, home,
temporary folder, number of threads and hash seed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
import pytest

from pipeline.locations import CONF_DIR
from tests.config.trees import REPOSITORY, as_checkout, as_wheel
from tests.end_to_end.conftest import NETWORKS, CommandLine, X

#: The opset that both write; dynamo's own.
EXPORTERS: Final = {"torchscript": 17, "dynamo": 18}
#: Every shipped configuration. One that is new has to be entered here.
MODELS: Final = (
    "alexnet", "convnext_tiny", "deeplabv3_mobilenet_v3_large", "densenet121", "efficientnet_b0",
    "fasterrcnn_mobilenet_v3_large_320_fpn", "lraspp_mobilenet_v3_large", "mobilenet_v2",
    "mobilenet_v3_small", "mvit_v1_b", "mynet", "mynet_multi_input", "r3d_18", "raft_small", "resnet18",
    "resnet50", "shufflenet_v2_x0_5", "squeezenet1_1", "ssdlite320_mobilenet_v3_large", "swin_t", "vgg11",
    "vit_b_16",
)  # fmt: skip
#: The pairs that do not export, and why; each other pair has to.
_GUARD: Final = "PL-313: how boxes are filtered depends on their number, which torch.export cannot follow"
NOT_EXPORTED: Final = {
    ("fasterrcnn_mobilenet_v3_large_320_fpn", "dynamo"): _GUARD,
    ("ssdlite320_mobilenet_v3_large", "dynamo"): _GUARD,
}
BASES: Final = ("factory", "torchvision")


@dataclass(frozen=True)
class Side:
    """A place where the pipeline is installed and used."""

    tree: Path
    folder: Path
    environment: Mapping[str, str]
    python: str = sys.executable

    def make(self, *words: str) -> Path:
        """Run the command line; the run directory."""
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        (home / "tmp").mkdir(parents=True)
        done = subprocess.run(
            [self.python, "-m", "pipeline", *words], cwd=self.folder, capture_output=True, text=True, check=False,
            env={**os.environ, **self.environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"),
                 "TMPDIR": str(home / "tmp")},
            timeout=550,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        (run,) = (path.parent for path in self.folder.glob("outputs/*/manifest.json"))
        return run

    def clear(self) -> None:
        """Remove what was made: some files are large."""
        shutil.rmtree(self.folder / "outputs", ignore_errors=True)
        shutil.rmtree(self.folder / "home", ignore_errors=True)


def side(tree: Path, folder: Path, threads: int, hash_seed: int) -> Side:
    folder.mkdir(parents=True)
    packages = folder.parent / "environment" / "site-packages"
    packages.parent.mkdir()
    packages.symlink_to(sysconfig.get_paths()["purelib"])
    environment = {
        "PYTHONPATH": f"{tree}{os.pathsep}{packages}",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONHASHSEED": str(hash_seed),
    }
    where = subprocess.run(
        [sys.executable, "-c", "import pipeline, numpy; print(pipeline.__file__, numpy.__file__)"],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert Path(where[0]).is_relative_to(tree) and Path(where[1]).is_relative_to(packages)
    return Side(tree, folder, environment)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side]:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("another") / "and/deeper"
    return (
        side(as_checkout(one / "checkout"), one / "work", 1, 1),
        side(as_wheel(two / "lib"), two / "a folder with spaces", 2, 77),
    )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Side:
    """A virtual environment of its own in which pip has installed the wheel, with the same packages."""
    folder = tmp_path_factory.mktemp("environment")
    quiet = {**os.environ, "PIP_CONSTRAINT": "/dev/null", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(*words: str | Path) -> str:
        return subprocess.run(
            [*map(str, words)], cwd=REPOSITORY, env=quiet, capture_output=True, text=True, check=True
        ).stdout

    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "wheel")
    (wheel,) = (folder / "wheel").glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv/bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    (site / "same_packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    where = run(
        python, "-I", "-c", "import pipeline, torch, sys; print(pipeline.__file__, sys.prefix)"
    ).split()
    assert Path(where[0]).is_relative_to(site) and where[1] == str(folder / "venv")
    (folder / "work").mkdir()
    variables = {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "5", "PYTHONPATH": ""}
    return Side(site, folder / "work", variables, str(python))


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("model", ["mynet", "resnet18", "vit_b_16", "lraspp_mobilenet_v3_large"])
def test_so_does_a_virtual_environment_with_the_wheel(
    sides: tuple[Side, Side], environment: Side, model: str, exporter: str
) -> None:
    words = (f"model={model}", f"export.exporter={exporter}", f"export.opset={EXPORTERS[exporter]}")
    one, other = sides[0].make(*words), environment.make(*words)
    assert one.name == other.name
    assert_same(one, other)
    for made in (sides[0], environment):
        made.clear()


@pytest.fixture
def both(sides: tuple[Side, Side]) -> Iterator[Callable[..., None]]:
    """Make the same request on both sides and compare."""

    def compare(*words: str) -> None:
        one, other = (one_side.make(*words) for one_side in sides)
        assert one.name == other.name
        assert_same(one, other)

    yield compare
    for one_side in sides:
        one_side.clear()


def assert_same(one: Path, other: Path, manifest: str = "manifest.json") -> None:
    """The manifest and every file that it lists, model.onnx among them, are the same to the byte."""
    paths = [row["path"] for row in json.loads((one / manifest).read_text())["artifacts"]]
    assert "model.onnx" in paths
    for path in [*paths, manifest]:
        left, right = one / path, other / path
        if left.read_bytes() != right.read_bytes():
            pytest.fail(f"{path} differs: {difference(left, right)}")


def difference(left: Path, right: Path) -> str:
    """What the first differences are, for the message of a failed test."""
    if left.suffix == ".json":
        texts = [path.read_text().splitlines() for path in (left, right)]
    elif left.suffix == ".onnx":
        texts = []
        for path in (left, right):
            model = onnx.load(str(path))
            texts.append([f"{name}: {part}" for name, part in _parts(model)])
    else:
        return "its bytes"
    found = [f"{one} | {other}" for one, other in zip(*texts, strict=False) if one != other]
    return f"{[len(text) for text in texts]} parts, {len(found)} differ: {[line[:600] for line in found[:3]]}"


def _parts(model: Any) -> Iterator[tuple[str, Any]]:
    graph = model.graph
    for index, node in enumerate(graph.node):
        yield f"node {index}", node
    for tensor in graph.initializer:
        yield "initializer", (tensor.name, list(tensor.dims), hash(tensor.raw_data))
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield "value", value
    yield "rest", (model.producer_name, model.producer_version, list(model.metadata_props), graph.name)


def test_every_shipped_configuration_is_in_the_list() -> None:
    shipped = {path.stem for path in Path(CONF_DIR, "model").glob("*.yaml")} - {*BASES, "onnx_file"}
    assert shipped == set(MODELS)


def test_the_comparison_sees_one_name_that_differs(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        run = tmp_path / name
        run.mkdir()
        text = f'<ir_version: 8, opset_import: ["" : 17]>\ng (float[1] x) => (float[1] y) {{ [{name}] y = Relu(x) }}'
        onnx.save(onnx.parser.parse_model(text), str(run / "model.onnx"))
        rows = {"artifacts": [{"path": "model.onnx"}]}
        (run / "listing.json").write_text(json.dumps(rows))
        runs.append(run)
    assert_same(runs[0], runs[0], "listing.json")
    with pytest.raises(pytest.fail.Exception, match=r"model\.onnx differs.*node 0.*one.*two"):
        assert_same(*runs, "listing.json")


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_two_installations_make_the_same_bytes(both: Callable[..., None], exporter: str) -> None:
    both("model=mynet", f"export.exporter={exporter}", f"export.opset={EXPORTERS[exporter]}")


@pytest.mark.parametrize("exporter", [pytest.param("torchscript", marks=pytest.mark.slow), "dynamo"])
def test_so_does_a_user_s_file_in_another_folder(
    both: Callable[..., None], sides: tuple[Side, Side], exporter: str
) -> None:
    for one_side in sides:
        shutil.copy(NETWORKS, one_side.folder / "networks.py")
    both(
        "model=factory", "model.factory=networks.py:build", "model.args={kind: Plain}", X,
        f"export.exporter={exporter}", f"export.opset={EXPORTERS[exporter]}",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "exporter"),
    [
        pytest.param(model, exporter, marks=[pytest.mark.skip(reason)] if reason else [])
        for model in MODELS
        for exporter in EXPORTERS
        for reason in [NOT_EXPORTED.get((model, exporter))]
    ],
)
def test_every_shipped_network_does(both: Callable[..., None], model: str, exporter: str) -> None:
    both(f"model={model}", f"export.exporter={exporter}", f"export.opset={EXPORTERS[exporter]}",
         "cache.mode=none")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("model", "exporter"), NOT_EXPORTED)
def test_what_is_listed_as_not_exported_still_is_not(
    sides: tuple[Side, Side], model: str, exporter: str
) -> None:
    with pytest.raises(AssertionError, match=NOT_EXPORTED[model, exporter].partition(":")[0]):
        sides[0].make(f"model={model}", f"export.exporter={exporter}", f"export.opset={EXPORTERS[exporter]}")
    sides[0].clear()


# -- another parity setting -----------------------------------------------------------------------


def uses(run: Path) -> dict[str, str]:
    """Stage to what the cache did, for the stages that it knows."""
    stages = json.loads((run / "run.json").read_text())["stages"]
    return {stage["name"]: stage["cache"] for stage in stages if stage["cache"] != "off"}


def test_another_parity_setting_exports_nothing_again(command: CommandLine) -> None:
    first = command("model=mynet", "out=outputs/first")
    assert first.code == 0, first.err
    assert set(uses(newest(first.folder)).values()) == {"miss"}
    model = newest(first.folder).joinpath("model.onnx").read_bytes()

    explained = command("cache", "explain", "model=mynet", "parity.seeds=5", "--json")
    rows = {row["stage"]: row for row in json.loads(explained.out)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "reference": "miss", "export": "hit", "simplify": "hit", "parity": "miss",
    }  # fmt: skip
    assert rows["reference"]["differs"] == ["takes.parity_inputs.config.seeds was 3, is 5"]
    assert "config.seeds was 3, is 5" in rows["parity"]["differs"]

    for index, (words, reference) in enumerate(
        {("parity.seeds=5",): "miss", ("parity=fixed",): "miss", ("parity.k=32",): "hit"}.items()
    ):
        done = command("model=mynet", *words, f"out=outputs/{index}")
        assert done.code == 0, done.err
        run = newest(done.folder)
        assert uses(run) == {
            "reference": reference, "export": "hit", "simplify": "hit", "parity": "miss",
        }  # fmt: skip
        assert (run / "model.onnx").read_bytes() == model


@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)])
def test_the_file_is_the_same_whatever_is_compared(network: CommandLine, exporter: str) -> None:
    """Made anew each time: what the export's key leaves out indeed changes nothing."""
    made = set()
    for index, words in enumerate(("parity.seeds=1", "parity=none", "parity=fixed")):
        done = network(
            "Plain", words, f"export.exporter={exporter}", f"export.opset={EXPORTERS[exporter]}",
            "cache.mode=none", f"out=outputs/{index}",
            inputs="model.inputs={x: {shape: [2,3,8,8], dynamic: {0: batch}}}",
        )  # fmt: skip
        assert done.code == 0, done.err
        made.add((newest(done.folder) / "model.onnx").read_bytes())
    assert len(made) == 1


def newest(folder: Path) -> Path:
    """The run directory that was made last."""
    found = folder.glob("outputs/*/*/manifest.json")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent
