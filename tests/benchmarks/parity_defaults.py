"""How far correct files are from the tolerance of parity, and how far faulty ones are beyond it.

    python tests/benchmarks/parity_defaults.py [MODEL...] [--opset 17] [--json FILE]

Without names: every network in conf/model. Each is made, exported, simplified and written by the
pipeline's own rooms, then compared; then one weight at a time is spoilt in the file. A process a
network. Figures of docs/decisions/0021 come from here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Selected by factory= or model.name=, not networks by themselves.
NO_NETWORKS = ("torchvision", "factory")
FAULTS: dict[str, Callable[[Any], Any]] = {
    "x1.1": lambda weight: weight * weight.dtype.type(1.1),
    "x1.01": lambda weight: weight * weight.dtype.type(1.01),
    "x1.001": lambda weight: weight * weight.dtype.type(1.001),
    "channel zeroed": lambda weight: _with_first(weight, 0),
    "channels swapped": lambda weight: weight[[1, 0, *range(2, len(weight))]],
}


def _with_first(weight: Any, value: float) -> Any:
    weight = weight.copy()
    weight[0] = value
    return weight


class Bench:
    """One network, through the rooms, in a folder of its own."""

    def __init__(self, name: str, opset: int, folder: Path) -> None:
        from pipeline.config.compose import compose
        from pipeline.exporters.stages import ExportStage
        from pipeline.graph.stages import SimplifyStage
        from pipeline.parity.stages import ReferenceStage
        from pipeline.samples.spec import parse_inputs
        from pipeline.samples.stages import InputsStage
        from pipeline.sources.load import load

        self.folder = folder
        config = compose([f"model={name}", f"export.opset={opset}"])
        self.config = config.parity
        specs = parse_inputs(config.model.inputs)
        self.values: dict[str, Any] = {
            "network": load(config.model, seed=config.seed, device="cpu", specs=specs)
        }
        for stage in (
            InputsStage(specs, config.seed, config.parity.seeds),
            ReferenceStage(config.parity),
            ExportStage(config.export, opset, specs, (), True),
            SimplifyStage(config.simplify, True),
        ):
            stage.run(self)
        del self.values["network"]
        self.reference = self.get("reference")

    scratch = Path()

    def emit(self, event: Any) -> None:
        pass

    def get(self, name: str) -> Any:
        return self.values[name]

    def put(self, name: str, value: Any) -> None:
        self.values[name] = value

    def file(self, path: str, kind: str, *, same_every_time: bool = True) -> Path:
        return self.folder / path

    def digest(self, path: str, sha256: str) -> None: ...

    def release(self, name: str) -> None:
        pass

    def outputs(self, model: Any, mode: str = "as written") -> Any:
        """What a bare model's file gives on every parity input."""
        from pipeline.graph.assemble import assemble
        from pipeline.parity.onnxruntime_session import run_onnxruntime

        path = self.folder / "model.onnx"
        for old in self.folder.glob("model.onnx*"):
            old.unlink()
        assemble(model, path)
        return run_onnxruntime(path, self.get("parity_inputs"), mode=mode)  # type: ignore[arg-type]

    def worst(self, outputs: Any) -> Any:
        from pipeline.parity.compare import compare

        return min(compare(self.reference, outputs, self.config), key=lambda item: item.margin)

    def measure(self) -> dict[str, Any]:
        """One row: honest margins, then the margin of every fault that changes the outputs."""
        import numpy as np

        from pipeline.parity.vacuous import find_vacuous

        model = self.get("simplified")
        honest = self.outputs(model)
        worst = self.worst(honest)
        row: dict[str, Any] = {
            "honest": worst.line(),
            "optimised": self.worst(self.outputs(model, "optimised")).margin,
            "ratio": _ratio(self.reference, honest),
            "growth": _growth(self.reference),
            "vacuous": [one.sentence for one in find_vacuous(self.reference, self.config)],
            "faults": [],
        }
        weights = [name for name, tensor in model.held.items() if len(tensor.shape) > 1 and tensor.dtype == 1]
        for index in sorted({0, len(weights) // 2, len(weights) - 1} if weights else ()):
            tensor = model.held[weights[index]]
            weight = np.frombuffer(memoryview(tensor.data()).cast("B"), np.float32).reshape(tensor.shape)
            for fault, spoil in FAULTS.items():
                if len(weight) < 2:
                    continue
                raw = np.ascontiguousarray(spoil(weight)).reshape(-1).view(np.uint8)
                spoilt = replace(tensor, data=lambda raw=raw: raw)
                outputs = self.outputs(replace(model, held={**model.held, tensor.name: spoilt}))
                if _same(honest, outputs):
                    continue  # a unit that its ReLU never lets through
                found = self.worst(outputs)
                row["faults"].append(
                    {"weight": tensor.name, "fault": fault, "margin": found.margin, "metric": found.criterion}
                )
        return row


def _ratio(reference: Any, outputs: Any) -> float | None:
    """Error of the file over error of the network, both against float64, on the first inputs."""
    import numpy as np

    ratios = []
    for name, exact in reference.exact.get(reference.first, {}).items():
        own, outcome = reference.outputs[reference.first][name], outputs[reference.first][name]
        if exact.dtype.kind == "f" and exact.shape == own.shape == outcome.shape and exact.size:
            noise = float(np.abs(own - exact).max())
            ratios += [float(np.abs(outcome - exact).max()) / noise] if noise else []
    return max(ratios, default=None)


def _growth(reference: Any) -> dict[str, float]:
    """How much larger the outputs are on other inputs than on the first."""
    import numpy as np

    first = reference.outputs[reference.first]
    return {
        label: max(
            float(np.abs(outputs[name]).max() / np.abs(first[name]).max())
            for name in first
            if first[name].dtype.kind == "f" and first[name].size and outputs[name].size
        )
        for label, outputs in reference.outputs.items()
    }


def _same(one: Any, other: Any) -> bool:
    import numpy as np

    return all(np.array_equal(one[label][name], other[label][name]) for label in one for name in one[label])


def _print(name: str, row: dict[str, Any]) -> None:
    if "failed" in row:
        print(f"{name:40} {row['failed']}", flush=True)
        return
    honest, faults = row["honest"], row["faults"]
    missed = [fault for fault in faults if fault["margin"] >= 1]
    noise, ratio = honest["noise"], row["ratio"]
    print(
        f"{name:40} margin {honest['margin']:9.3g} ({honest['output']}, {honest['seed']}, "
        f"noise {'-' if noise is None else format(noise, '.1e')}) optimised {row['optimised']:9.3g} "
        f"growth {max(row['growth'].values()):.1f} y/r {'-' if ratio is None else format(ratio, '.2f')}; {len(faults)} faults, "
        f"largest margin {max((fault['margin'] for fault in faults), default=0):.2g}, {len(missed)} missed"
        + (f"; vacuous: {row['vacuous'][0]}" if row["vacuous"] else ""),
        flush=True,
    )
    for fault in missed:
        print(f"{'':40}   missed: {fault['fault']} of {fault['weight']}, margin {fault['margin']:.3g}")


def main() -> None:
    """Measure and print; with `--one` a single network, as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--opset", type=int, default=17)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", action="store_true")
    arguments = parser.parse_args()
    if arguments.one:
        sys.path.insert(0, str(ROOT))
        try:
            with tempfile.TemporaryDirectory() as folder:
                row = Bench(arguments.models[0], arguments.opset, Path(folder)).measure()
        except Exception as error:  # noqa: BLE001 - a row of the table
            traceback.print_exc()
            row = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"}
        print(json.dumps(row))
        return
    names = arguments.models or sorted(
        path.stem for path in (ROOT / "conf/model").glob("*.yaml") if path.stem not in NO_NETWORKS
    )
    rows = {}
    for name in names:
        done = subprocess.run(
            [sys.executable, __file__, name, "--one", "--opset", str(arguments.opset)],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stdout.strip().splitlines()
        rows[name] = (
            json.loads(lines[-1]) if lines and done.returncode == 0 else {"failed": done.stderr[-300:]}
        )
        _print(name, rows[name])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
