"""`compare A B`: what differs between two run directories.

Exit code 0: they are the same request with the same bytes. 1: they differ. 2: one of them is no run
directory, or is damaged. Needs no torch; only files that differ are read and run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.commands.arguments import parser, print_json
from pipeline.errors import EXIT_FAILED, EXIT_MADE, PipelineError, Refused
from pipeline.report.units import count, figure, place
from pipeline.run.explain import differences
from pipeline.run.records import MANIFEST, RECORD, load
from pipeline.run.verify import NotARunDirectoryError, verify_directory

if TYPE_CHECKING:
    from pipeline.graph.readback import Contract

#: Sections of the manifest in the order in which they explain one another.
SECTIONS: Final = (
    "request", "model", "seeds", "versions", "inputs", "outputs", "opsets", "ir_version", "tolerances",
)  # fmt: skip


#: How many weights a line names.
NAMED: Final = 4
#: How much of a weight is read at a time.
PIECE_BYTES: Final = 1 << 22
#: The part whose difference alone changes no file.
PIPELINE: Final = "pipeline"


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same: in which part, and how; or a remark beside such things."""

    part: str
    text: str

    @property
    def is_remark(self) -> bool:
        """Whether it is beside the differences and none by itself."""
        return isinstance(self.text, _Remark)


class _Remark(str):
    """A line that says what is the same, or what was not compared."""

    __slots__ = ()


def main(argv: Sequence[str]) -> int:
    """Compare two run directories; the exit code."""
    arguments = parser("compare", "What differs between two run directories (first and second).")
    arguments.add_argument("first", type=Path)
    arguments.add_argument("second", type=Path)
    given = arguments.parse_args(argv)
    found = compare_directories(given.first, given.second)
    differ = [each for each in found if not each.is_remark]
    times = _times(given.first, given.second)
    if given.json:
        remarks = [asdict(each) for each in found if each.is_remark]
        print_json({"same": not differ, "differences": [asdict(each) for each in differ], "remarks": remarks,
                    "times": times})  # fmt: skip
    elif differ:
        for each in found:
            print(f"{each.part:<10} {each.text}")
        _say_times(times)
        print(f"{count(len(differ), 'difference')} between {place(given.first)} and {place(given.second)}")
    else:
        _say_times(times)
        print(f"{place(given.first)} and {place(given.second)} are the same")
    return EXIT_FAILED if differ else EXIT_MADE


def compare_directories(first: Path, second: Path, *, expected: bool = True) -> list[Difference]:
    """Every difference, causes before effects, with remarks on what was looked at beside them.

    Args:
        first: a run directory.
        second: another.
        expected: compare the networks' saved outputs too, which may differ from machine to machine.

    Raises:
        Refused: one of them is no whole run directory.
    """
    one, other = whole_manifest(first), whole_manifest(second)
    found = [
        Difference(section, text.removeprefix(section).lstrip(". "))
        for section in SECTIONS
        for text in differences({section: _named(one[section])}, {section: _named(other[section])})
    ]
    found += [Difference("stages", text) for text in _stages(one, other)]
    found += [Difference("verdicts", text) for text in differences(one["verdicts"], other["verdicts"])]
    if not found and one["keys"]["result"] != other["keys"]["result"]:
        found.append(Difference(PIPELINE, "was another version of the pipeline's own code"))
    changed = list(_files(one, other))
    found += [Difference("files", text) for text in changed]
    if any(text.startswith("model.onnx") for text in changed):
        found += [Difference("graph", text) for text in _graphs(first, second)]
        found += [Difference("outputs", text) for text in _outputs(first, second)]
    if expected:
        found += [Difference("expected", text) for text in _expected(first, second)]
    return found


def _named(section: Any) -> Any:
    """The default domain of operators has an empty name in files; people call it ai.onnx."""
    if isinstance(section, dict) and "" in section:
        return {name or "ai.onnx": value for name, value in section.items()}
    return section


def whole_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run directory that is whole and unchanged.

    Raises:
        Refused: it is no run directory, or it is not whole.
    """
    try:
        problems = verify_directory(folder)
    except NotARunDirectoryError as error:
        raise Refused(
            "PL-801", "not a run directory", where=str(folder), found=str(error),
            next_step="Name a folder that holds manifest.json",
        ) from error  # fmt: skip
    if problems:
        raise Refused(
            "PL-801", "the run directory is not whole", where=str(folder),
            found=f"{problems[0].path} {problems[0].message}",
            next_step=f"Type python -m pipeline verify {folder} to see all of it",
        )  # fmt: skip
    return load(folder / MANIFEST)


def _stages(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    before, after = ([stage["name"] for stage in manifest["stages"]] for manifest in (one, other))
    if before != after:
        yield f"were {', '.join(before)}; are {', '.join(after)}"


def _files(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    before, after = ({file["path"]: file for file in manifest["artifacts"]} for manifest in (one, other))
    for path in sorted({*before, *after}):
        if path not in after:
            yield f"{path} is only in the first"
        elif path not in before:
            yield f"{path} is only in the second"
        elif before[path]["sha256"] != after[path]["sha256"]:
            sizes = before[path]["size"], after[path]["size"]
            yield f"{path} has other bytes" + (
                f" ({sizes[0]} and {sizes[1]})" if sizes[0] != sizes[1] else ""
            )


def _graphs(first: Path, second: Path) -> Iterator[str]:
    """How the graphs differ: nodes by operator, else the first node that is another, and the weights."""
    from pipeline.graph.readback import read_contract
    from pipeline.graph.walk import model_nodes

    models = [read_contract(folder / "model.onnx") for folder in (first, second)]
    nodes = [list(model_nodes(contract.model)) for contract in models]
    before, after = (Counter(node.op_type for node in listed) for listed in nodes)
    for operator in sorted({*before, *after}):
        if before[operator] != after[operator]:
            yield f"{operator}: {count(before[operator], 'node')} and {after[operator]}"
    if before == after:
        yield from _first_other_node(nodes)
    yield from _weights(*models)


def _first_other_node(nodes: Sequence[Sequence[Any]]) -> Iterator[str]:
    for position, (node, twin) in enumerate(zip(*nodes, strict=True)):
        if node.SerializeToString(deterministic=True) != twin.SerializeToString(deterministic=True):
            yield f"node {position} ({node.op_type} {node.name or node.output[0]}) is the first that differs"
            return
    yield _Remark("the nodes are the same")


def _weights(first: Contract, second: Contract) -> Iterator[str]:
    """Which initializers are not the same to the byte, by name."""
    one, other = _initializers(first), _initializers(second)
    gone, new = (
        [name for name in these if name not in those] for these, those in ((one, other), (other, one))
    )
    changed = [name for name in one if name in other and one[name] != other[name]]
    for names, what in (
        (changed, "of other values"),
        (gone, "only in the first"),
        (new, "only in the second"),
    ):
        if names:
            more = ", ..." if len(names) > NAMED else ""
            yield f"{count(len(names), 'weight')} {what} of {len(one)}: {', '.join(names[:NAMED])}{more}"


def _initializers(contract: Contract) -> dict[str, str]:
    """Name to a digest of dtype, shape and bytes, of every initializer of the file."""
    found = {}
    large = {place.name: place for place in contract.layout.tensors}
    for tensor in contract.model.graph.initializer:
        head = f"{tensor.data_type} {list(tensor.dims)}".encode()
        digest = hashlib.sha256(head)
        if tensor.name in large:
            where = large[tensor.name]
            with where.file.open("rb") as stream:
                stream.seek(where.offset)
                for start in range(0, where.size, PIECE_BYTES):
                    digest.update(stream.read(min(PIECE_BYTES, where.size - start)))
        else:
            digest.update(tensor.SerializeToString(deterministic=True))
        found[tensor.name] = digest.hexdigest()
    return found


def _times(first: Path, second: Path) -> dict[str, list[float]]:
    """Seconds of the whole and of each stage that both runs have."""
    one, other = (load(folder / RECORD) for folder in (first, second))
    stages = [{stage["name"]: stage["seconds"] for stage in record["stages"]} for record in (one, other)]
    both = {name: [seconds, stages[1][name]] for name, seconds in stages[0].items() if name in stages[1]}
    return {"total": [one["seconds"], other["seconds"]], **both}


def _say_times(times: Mapping[str, Sequence[float]]) -> None:
    """No difference by itself: the same work takes another time every time."""
    noted = [
        f"{name} {before:.1f} and {after:.1f} s"
        for name, (before, after) in times.items()
        if max(before, after) >= 0.1 or name == "total"
    ]
    print(f"{'times':<10} {', '.join(noted)}")


def _outputs(first: Path, second: Path) -> Iterator[str]:
    """How far the outputs of the two files are apart on the same inputs: those that the first has saved."""
    from pipeline.commands.deep import SAVED, saved_arrays
    from pipeline.parity.onnxruntime_session import run_onnxruntime

    try:
        inputs = saved_arrays(first, "inputs.npz")
        if inputs is None:
            return
        before, after = (
            run_onnxruntime(
                folder / "model.onnx", {SAVED: inputs}, extra=saved_arrays(folder, "parameters.npz")
            )[SAVED]
            for folder in (first, second)
        )
    except PipelineError as error:
        yield f"the two files do not run on the same inputs: {error.reason.sentence()}"
        return
    except ValueError as error:
        yield _Remark(f"the saved inputs cannot be read, so the two files were not run: {error}")
        return
    same = _Remark("the same to the bit on the first's saved inputs")
    yield from list(_apart(before, after, {})) or [same]


def _expected(first: Path, second: Path) -> Iterator[str]:
    """How far the networks' saved outputs are apart, where both were given the same inputs."""
    from pipeline.commands.deep import saved_arrays

    samples = [
        folder / "samples" / name for folder in (first, second) for name in ("inputs.npz", "expected.npz")
    ]
    if not all(path.is_file() for path in samples):
        return
    inputs = [(folder / "samples" / "inputs.npz").read_bytes() for folder in (first, second)]
    if inputs[0] != inputs[1]:
        yield _Remark("the saved inputs are not the same, so the saved outputs were not compared")
        return
    try:
        before, after = (saved_arrays(folder, "expected.npz") or {} for folder in (first, second))
    except ValueError as error:
        yield _Remark(f"the saved outputs cannot be read, so they were not compared: {error}")
        return
    yield from _apart(before, after, _tolerances(first))


def _apart(
    before: Mapping[str, Any], after: Mapping[str, Any], tolerated: Mapping[str, float]
) -> Iterator[str]:
    """A line for each output that differs by more than is tolerated, in units of its largest value."""
    import numpy as np

    for name in before:
        if name not in after or before[name].shape != after[name].shape:
            yield f"output {name} has another shape or is missing"
            continue
        old, new = (np.nan_to_num(np.asarray(arrays[name], np.float64)) for arrays in (before, after))
        largest = float(np.max(np.abs(old), initial=0.0)) or 1.0
        off = float(np.max(np.abs(new - old), initial=0.0)) / largest
        if off > tolerated.get(name, 0.0):
            yield f"output {name} is off by {figure(off)} of its largest value"


def _tolerances(folder: Path) -> dict[str, float]:
    """Output name to the widest tolerance recorded: within it two machines may differ."""
    found: dict[str, float] = {}
    for line in load(folder / RECORD)["parity"]:
        found[line["output"]] = max(found.get(line["output"], 0.0), line["tolerance"] or 0.0)
    return found
