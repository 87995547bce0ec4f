"""Run a TensorRT engine on inputs.npz and compare with expected.npz: `python run.py`.

Needs numpy and either the `tensorrt` package with the CUDA runtime, or `trtexec` on the PATH. Prints a
line an output and ends with 0 when all are within the tolerance of settings.json, else with 1.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
#: The CUDA runtime's file names, newest first; the environment variable CUDART names another.
LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_RUN_S = 600


class RunError(Exception):
    """The engine cannot be run; the text is one sentence."""


class Cuda:
    """The few calls of the CUDA runtime that running an engine takes."""

    def __init__(self) -> None:
        self.library = _cuda_library()
        self.library.cudaMalloc.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t]
        self.library.cudaFree.argtypes = [ctypes.c_void_p]
        self.library.cudaMemcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.library.cudaDeviceSynchronize.argtypes = []

    def allocate(self, size: int) -> int:
        """Device memory; a tensor without elements has an address too."""
        pointer = ctypes.c_void_p()
        self._check(self.library.cudaMalloc(ctypes.byref(pointer), max(size, 1)), "cudaMalloc")
        return int(pointer.value or 0)

    def free(self, address: int) -> None:
        self._check(self.library.cudaFree(address), "cudaFree")

    def to_device(self, address: int, array: Any) -> None:
        self._check(
            self.library.cudaMemcpy(address, array.ctypes.data, array.nbytes, TO_DEVICE), "cudaMemcpy"
        )

    def to_host(self, array: Any, address: int) -> None:
        self._check(self.library.cudaMemcpy(array.ctypes.data, address, array.nbytes, TO_HOST), "cudaMemcpy")

    def synchronize(self) -> None:
        self._check(self.library.cudaDeviceSynchronize(), "cudaDeviceSynchronize")

    def _check(self, code: int, call: str) -> None:
        if code:
            raise RunError(f"{call} failed with the CUDA error {code}")


def _cuda_library() -> Any:
    names = [os.environ.get("CUDART"), ctypes.util.find_library("cudart"), *LIBRARIES, *_of_packages()]
    for name in filter(None, names):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RunError("the CUDA runtime was not found: set CUDART to libcudart.so")


def _of_packages() -> Iterator[str]:
    """The CUDA runtime of the nvidia-cuda-runtime packages."""
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        yield from map(str, sorted(Path(root).glob("*/lib/libcudart.so*")))


class Engine:
    """An engine, loaded."""

    def __init__(self, path: Path) -> None:
        import tensorrt as trt

        self.trt = trt
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))  # lives as long as what it made
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise RunError(f"TensorRT {trt.__version__} does not load {path.name}: it was built for another "
                           "version or GPU")  # fmt: skip
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise RunError("TensorRT made no execution context: is there enough memory on the GPU?")
        self.cuda = Cuda()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = [name for name in names if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.inputs, self.outputs = inputs, [name for name in names if name not in inputs]

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs by name for inputs by name."""
        if sorted(values) != sorted(self.inputs):
            raise RunError(f"the engine takes {', '.join(self.inputs)}, got {', '.join(values)}")
        addresses: list[int] = []
        try:
            for name in self.inputs:
                array = np.ascontiguousarray(values[name]).reshape(np.shape(values[name]))
                wanted = np.dtype(self.trt.nptype(self.engine.get_tensor_dtype(name)))
                if array.dtype != wanted:
                    raise RunError(f"input {name} is {array.dtype}, the engine takes {wanted}")
                if not self.context.set_input_shape(name, tuple(array.shape)):
                    raise RunError(f"input {name}: the engine does not take the size {list(array.shape)}")
                addresses.append(self.cuda.allocate(array.nbytes))
                self.cuda.to_device(addresses[-1], array)
                self.context.set_tensor_address(name, addresses[-1])
            found = {}
            for name in self.outputs:
                shape = tuple(self.context.get_tensor_shape(name))
                if any(size < 0 for size in shape):
                    raise RunError(f"output {name} has a size that depends on values: {list(shape)}")
                found[name] = np.empty(shape, self.trt.nptype(self.engine.get_tensor_dtype(name)))
                addresses.append(self.cuda.allocate(found[name].nbytes))
                self.context.set_tensor_address(name, addresses[-1])
            if not self.context.execute_async_v3(0):  # the default stream
                raise RunError("TensorRT could not run the engine; its log says why")
            self.cuda.synchronize()
            for name, address in zip(self.outputs, addresses[len(self.inputs) :], strict=True):
                self.cuda.to_host(found[name], address)
            return found
        finally:
            for address in addresses:
                self.cuda.free(address)


def run_by_trtexec(
    engine: Path, values: Mapping[str, Any], expected: Mapping[str, tuple[str, Any]], trtexec: str
) -> dict[str, Any]:
    """All outputs by name, through one run of trtexec.

    Args:
        engine: the file.
        values: inputs by name.
        expected: output to its element type and shape: trtexec says neither exactly.
        trtexec: the program.
    """
    with tempfile.TemporaryDirectory() as folder:
        loads = []
        for index, (name, array) in enumerate(values.items()):
            file = Path(folder) / f"{index}.bin"
            np.ascontiguousarray(array).tofile(file)
            loads.append(f"{named(name)}:{file}")
        result = Path(folder) / "outputs.json"
        shapes = ",".join(f"{named(name)}:{sizes(np.shape(array))}" for name, array in values.items())
        words = [
            trtexec, f"--loadEngine={engine}", f"--loadInputs={','.join(loads)}", f"--exportOutput={result}",
            f"--shapes={shapes}", "--iterations=1", "--warmUp=0", "--duration=0",
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, timeout=_RUN_S, check=False)
        if done.returncode or not result.is_file():
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise RunError(f"trtexec did not run the engine: {lines[-1] if lines else done.returncode}")
        found = {}
        for row in json.loads(result.read_text(encoding="utf-8")):
            if row["name"] in expected:
                dtype, shape = expected[row["name"]]
                found[row["name"]] = np.asarray(row["values"], np.float64).astype(dtype).reshape(shape)
    return found


def named(name: str) -> str:
    """A tensor's name as trtexec takes it: in single quotes where it holds what separates."""
    return f"'{name}'" if any(sign in name for sign in ":, ") else name


def sizes(shape: Any) -> str:
    """1x3x224x224; a scalar has one size."""
    return "x".join(str(int(size)) for size in shape) or "1"


def compare(expected: Mapping[str, Any], outputs: Mapping[str, Any], tolerance: float) -> bool:
    """Print a line an output; whether all are within max |difference| / max |expected| <= tolerance.

    NaN and infinities must stand where they are expected, with their sign.
    """
    if not expected:
        print("there is nothing to compare with: expected.npz holds no output")
        return False
    good = True
    for name, wanted in expected.items():
        found = outputs.get(name)
        if found is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
            shape = getattr(found, "shape", "no output")
            print(
                f"{name}: {getattr(found, 'dtype', '')} {shape}, expected {wanted.dtype} {wanted.shape}: FAILED"
            )
            good = False
            continue
        if wanted.dtype.kind == "f":
            finite = np.isfinite(wanted)
            if not np.array_equal(found[~finite], wanted[~finite], equal_nan=True) or (
                not np.isfinite(found[finite]).all()
            ):
                print(f"{name}: NaN or infinity stands elsewhere than expected: FAILED")
                good = False
                continue
            numbers = wanted[finite].astype(np.float64)
            scale = float(np.abs(numbers).max(initial=0)) or 1.0
            error = float(np.abs(found[finite].astype(np.float64) - numbers).max(initial=0)) / scale
            passed = error <= tolerance
        else:
            error = float((found != wanted).mean()) if wanted.size else 0.0
            passed = error == 0
        print(f"{name}: error {error:.3g}, tolerance {tolerance:.3g}: {'passed' if passed else 'FAILED'}")
        good = good and passed
    return good


def main() -> int:
    """Run the engine and compare; 0 when all outputs are within the tolerance."""
    settings = json.loads((FOLDER / "settings.json").read_text(encoding="utf-8"))
    inputs = dict(np.load(FOLDER / "inputs.npz", allow_pickle=False))
    expected = dict(np.load(FOLDER / "expected.npz", allow_pickle=False))
    engine = FOLDER / settings["engine"]
    if not engine.is_file():
        print(f"{engine.name} is not there: run build.py or build.sh first", file=sys.stderr)
        return 1
    trtexec = shutil.which("trtexec")
    try:
        if importlib.util.find_spec("tensorrt") is not None:
            outputs = Engine(engine).run(inputs)
        elif trtexec is not None:
            known = {name: (array.dtype.name, array.shape) for name, array in expected.items()}
            outputs = run_by_trtexec(engine, inputs, known, trtexec)
        else:
            raise RunError("neither the tensorrt package nor trtexec is here")
    except (RunError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if compare(expected, outputs, float(settings["tolerance"])) else 1


if __name__ == "__main__":
    sys.exit(main())
