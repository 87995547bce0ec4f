"""What `make bench` measures, and the goal of each: one explicit table."""

from dataclasses import dataclass
from typing import Final, Literal

#: Peak memory goal of the TorchScript road: what `import torch, torchvision` takes, plus this many
#: times the weights, plus room for the graph, the allocator and ONNX Runtime.
MEMORY_WEIGHTS_FACTOR: Final = 1.3
MEMORY_ROOM_MIB: Final = 180.0

#: `fresh`: no cache, empty folders. `cold`: an empty cache, used within the command. `warm`: folders
#: and cache of a first run, which is not measured. `no files`: nothing is written.
Start = Literal["fresh", "cold", "warm", "no files"]


@dataclass(frozen=True)
class Case:
    """One row: a pipeline command line, the hand scripts that do its work, and what is aimed at.

    Attributes:
        name: for `--case`.
        arguments: of `python -m pipeline`.
        hand: arguments of the hand script, once a run of it; the output file is added. Empty where
            there is nothing to compare with.
        start: what lies there already when the measured command starts.
        goal_ratio: wall time against the hand scripts, at most.
        goal_s: wall time, seconds, at most.
        goal_memory_ratio: peak memory against the hand script's, at most.
        goal_memory_factor: peak memory at most what importing torch takes, plus this many times the
            weights, plus `goal_memory_room_mib`.
        most_pairs: time no more pairs than this, for a case that takes minutes.
        by_default: measured when no case is named.
        quick: measured with `--quick`.
    """

    name: str
    arguments: tuple[str, ...]
    hand: tuple[tuple[str, ...], ...] = ()
    start: Start = "fresh"
    goal_ratio: float | None = None
    goal_s: float | None = None
    goal_memory_ratio: float | None = None
    goal_memory_factor: float | None = None
    goal_memory_room_mib: float = 0.0
    most_pairs: int | None = None
    by_default: bool = True
    quick: bool = False


def _torchscript(
    network: str, opset: int, goal_ratio: float, *, named: bool = True, quick: bool = False
) -> Case:
    """A network by the TorchScript exporter; `named` if it has a config of its own."""
    model = (f"model={network}",) if named else ("model=torchvision", f"model.name={network}")
    return Case(
        name=f"{network}-op{opset}",
        arguments=(*model, f"export.opset={opset}"),
        hand=((network, str(opset)),),
        goal_ratio=goal_ratio,
        goal_memory_factor=MEMORY_WEIGHTS_FACTOR,
        goal_memory_room_mib=MEMORY_ROOM_MIB,
        quick=quick,
    )


def _dynamo(network: str, goal_ratio: float) -> Case:
    return Case(
        name=f"{network}-op18-dynamo",
        arguments=(f"model={network}", "export.opset=18", "export.exporter=dynamo"),
        hand=((network, "18", "--dynamo"),),
        goal_ratio=goal_ratio,
        goal_memory_ratio=0.80,
    )


def _six_gigabytes(builder: str, shape: str) -> Case:
    """A network of 6 GB of float32 weights: minutes and most of a 24 GB machine, so only by name."""
    return Case(
        name=f"{builder.replace('_', '-')}-6gb",
        arguments=(
            "model=factory",
            f"model.factory=tests/benchmarks/large_networks.py:{builder}",
            f"model.inputs={{x: {{shape: {shape}}}}}",
            "export.opset=17",
        ),
        goal_memory_factor=MEMORY_WEIGHTS_FACTOR,
        most_pairs=1,
        by_default=False,
    )


@dataclass(frozen=True)
class OneMorePoint:
    """What one more point of a sweep costs when all but its own stages are in the cache.

    The processor time of a sweep over many new values less that of a sweep over one, a point, less
    the seconds of its own stages.

    Attributes:
        name: for `--case`.
        arguments: of `python -m pipeline`, without the key that is swept.
        key: the key that is swept over values that no earlier run had.
        value: how a new value is written, from a whole number.
        stages: what has another key from point to point.
        goal_s: processor seconds besides those stages, at most.
    """

    name: str
    arguments: tuple[str, ...]
    key: str
    stages: tuple[str, ...]
    goal_s: float
    value: str = "{}"


SWEEP_OPSETS: Final = (11, 12, 13, 14, 15, 16)

CASES: Final = (
    _torchscript("alexnet", 11, 0.30, quick=True),
    _torchscript("vgg16", 11, 0.30, named=False),
    _torchscript("vit_b_16", 17, 0.55),
    _torchscript("vit_l_16", 17, 0.55, named=False),
    _torchscript("resnet18", 13, 0.50),
    _torchscript("mobilenet_v2", 13, 0.50),
    _dynamo("resnet18", 0.60),
    _dynamo("vit_b_16", 0.60),
    Case(
        name="alexnet-again",
        arguments=("model=alexnet", "export.opset=11"),
        hand=(("alexnet", "11"),),
        start="warm",
        goal_ratio=0.06,
        goal_s=0.8,
        quick=True,
    ),
    Case(
        name="alexnet-six-opsets",
        arguments=("-m", "model=alexnet", f"export.opset={','.join(map(str, SWEEP_OPSETS))}"),
        hand=tuple(("alexnet", str(opset)) for opset in SWEEP_OPSETS),
        start="cold",
        goal_ratio=0.15,
    ),
    Case(name="help", arguments=("--help",), start="no files", goal_s=1.2, quick=True),
    Case(
        name="cfg",
        arguments=("model=alexnet", "--cfg", "job"),
        start="no files",
        goal_s=1.2,
        quick=True,
    ),
    _six_gigabytes("deep_mlp", "[1, 8192]"),
    _six_gigabytes("transformer", "[1, 64, 4096]"),
)

_RESNET18: Final = ("-m", "model=resnet18", "export.opset=13")

ONE_MORE_POINTS: Final = (
    OneMorePoint(
        name="resnet18-one-more-parity",
        arguments=_RESNET18,
        key="parity.k",
        stages=("parity",),
        goal_s=0.5,
    ),
    OneMorePoint(
        name="resnet18-one-more-tolerance",  # of a compiled target: compared again, neither compiled nor run
        arguments=(*_RESNET18, "target=onnxruntime"),
        key="+target.limits.precisions.float32",
        value="0.0{}",
        stages=("compare", "bundle"),
        goal_s=0.5,
    ),
    OneMorePoint(
        name="resnet18-one-more-profile",  # a predicted target: judged again
        arguments=(*_RESNET18, "target=ti_tidl"),
        key="+target.limits.max_rank",
        stages=("precheck",),
        goal_s=0.5,
    ),
)
