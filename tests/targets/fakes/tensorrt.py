"""Stands in for the tensorrt package, 10.x or 11.x (FAKE_TENSORRT_VERSION): the documented calls and no others.

An engine is the ONNX file behind a line that names the version; ONNX Runtime computes it on "device"
memory that the stand-in of the CUDA runtime takes from the heap. FAKE_TENSORRT_FAULT names what goes wrong.
Every call that changes anything is written to FAKE_TENSORRT_CALLS, a line of JSON each.
"""

import ctypes
import json
import os

import numpy as np
import onnx
import onnx.checker
import onnxruntime

__version__ = os.environ.get("FAKE_TENSORRT_VERSION", "10.15.1.29")
_MAJOR = int(__version__.split(".")[0])


def _fault(name):
    return os.environ.get("FAKE_TENSORRT_FAULT") == name


def _note(call, *values):
    path = os.environ.get("FAKE_TENSORRT_CALLS")
    if path:
        with open(path, "a") as stream:  # noqa: PTH123
            stream.write(json.dumps([call, *values], default=str) + "\n")


class _Word:
    def __init__(self, kind, name, number):
        self.kind, self.name, self.number = kind, name, number

    def __int__(self):
        return self.number

    def __str__(self):
        return f"{self.kind}.{self.name}"


def _enum(kind, *names):
    return type(kind, (), {name: _Word(kind, name, index) for index, name in enumerate(names)})


if _MAJOR < 11:
    NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH", "STRONGLY_TYPED")
    BuilderFlag = _enum("BuilderFlag", "FP16", "BF16", "INT8", "TF32", "VERSION_COMPATIBLE")
else:  # what 11 has no more is not there
    NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag")
    BuilderFlag = _enum("BuilderFlag", "TF32", "VERSION_COMPATIBLE")
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE", "DLA_MANAGED_SRAM")
ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "DETAILED", "NONE")
TensorIOMode = _enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")
LayerInformationFormat = _enum("LayerInformationFormat", "ONELINE", "JSON")
DataType = _enum("DataType", "FLOAT", "HALF", "INT64", "INT32", "BOOL")
_TYPES = {1: DataType.FLOAT, 10: DataType.HALF, 7: DataType.INT64, 6: DataType.INT32, 9: DataType.BOOL}
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}


def nptype(kind):
    return _NUMPY[kind.name]


class Logger:
    VERBOSE, INFO, WARNING, ERROR = 4, 3, 2, 1

    def __init__(self, severity):
        self.severity = severity


class Network:
    def __init__(self):
        self.model = None


class _Error:
    def __init__(self, name="/strange/Det", operator="Det"):
        self.name, self.operator = name, operator

    def desc(self):
        return "Unsupported operator"

    def node_name(self):
        return self.name

    def node_operator(self):
        return self.operator


class OnnxParser:
    def __init__(self, network, logger):
        self.network, self.errors = network, []

    def parse_from_file(self, path):
        _note("parse_from_file", path)
        if _fault("parse"):
            self.errors = [_Error(), _Error()]
            return False
        try:
            onnx.checker.check_model(path)
        except Exception:  # noqa: BLE001 - the parser has its own words for everything
            self.errors = [_Error()]
            return False
        self.network.model = onnx.load(path)
        self.errors = [
            _Error(node.name, node.op_type) for node in self.network.model.graph.node if node.domain
        ]
        return not self.errors

    @property
    def num_errors(self):
        return len(self.errors)

    def get_error(self, index):
        return self.errors[index]


class _Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, least, usual, most):
        assert all(isinstance(each, tuple) for each in (least, usual, most))
        self.shapes[name] = [list(least), list(usual), list(most)]


class _TimingCache:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return memoryview(self.data or f"timings of {__version__}".encode())


class _Config:
    def __init__(self):
        self.flags, self.profiles, self.cache = {"TF32"}, [], None
        self.builder_optimization_level = None
        self.profiling_verbosity = None

    def set_memory_pool_limit(self, pool, size):
        _note("set_memory_pool_limit", pool, size)

    def set_flag(self, flag):
        self.flags.add(flag.name)

    def clear_flag(self, flag):
        if not _fault("tf32"):
            self.flags.discard(flag.name)

    def get_flag(self, flag):
        return flag.name in self.flags

    def add_optimization_profile(self, profile):
        good = all(a <= b <= c for sizes in profile.shapes.values() for a, b, c in zip(*sizes, strict=True))
        if good:
            self.profiles.append(profile)
        return len(self.profiles) - 1 if good else -1

    def create_timing_cache(self, data):
        assert isinstance(data, bytes)
        return _TimingCache(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        if cache.data and __version__.encode() not in cache.data:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Builder:
    def __init__(self, logger):
        pass

    def create_network(self, flags):
        assert flags == (0 if _MAJOR >= 11 else 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)), flags
        return Network()

    def create_builder_config(self):
        return _Config()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        dynamic = [
            value.name
            for value in network.model.graph.input
            if any(dim.dim_param for dim in value.type.tensor_type.shape.dim)
        ]
        known = config.profiles[0].shapes if config.profiles else {}
        _note(
            "build",
            {
                "flags": sorted(config.flags),
                "level": config.builder_optimization_level,
                "verbosity": str(config.profiling_verbosity),
                "profiles": known,
                "cache": (config.cache.data or b"").decode(),
            },
        )
        if _fault("build") or any(name not in known for name in dynamic):
            return None
        head = json.dumps({"version": __version__, "profiles": known}).encode()
        return memoryview(head + b"\n" + network.model.SerializeToString())


class Runtime:
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, data):
        head, _, body = bytes(data).partition(b"\n")
        facts = json.loads(head)
        if facts["version"] != __version__:
            return None
        return _Engine(onnx.load_from_string(body), facts["profiles"])


class _Engine:
    def __init__(self, model, profiles):
        self.model, self.profiles = model, profiles
        kept = {tensor.name for tensor in model.graph.initializer}
        self.values = [value for value in model.graph.input if value.name not in kept]
        self.inputs = {value.name for value in self.values}
        self.values += model.graph.output

    @property
    def num_io_tensors(self):
        return len(self.values)

    def get_tensor_name(self, index):
        return self.values[index].name

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        value = next(value for value in self.values if value.name == name)
        return _TYPES[value.type.tensor_type.elem_type]

    def create_execution_context(self):
        return None if _fault("context") else _Context(self)

    def create_engine_inspector(self):
        return self

    def get_engine_information(self, form):
        half = any(tensor.data_type == 10 for tensor in self.model.graph.initializer)
        said = "Row major linear FP16 format" if half else "Row major linear FP32"
        layers = [
            {"Name": node.name, "Outputs": [{"Format/Datatype": said}]} for node in self.model.graph.node
        ]
        return json.dumps({"Layers": layers})


class _Context:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses = engine, {}, {}
        self.session = onnxruntime.InferenceSession(
            engine.model.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def set_input_shape(self, name, shape):
        value = next(value for value in self.engine.values if value.name == name)
        least, _, most = (
            self.engine.profiles.get(name)
            or [[dim.dim_value for dim in value.type.tensor_type.shape.dim]] * 3
        )
        good = len(shape) == len(least) and all(
            a <= b <= c for a, b, c in zip(least, shape, most, strict=True)
        )
        if good:
            self.shapes[name] = tuple(shape)
        return good

    def set_tensor_address(self, name, address):
        assert address
        self.addresses[name] = address
        return True

    def _feed(self, read):
        return {
            name: read(name, np.dtype(nptype(self.engine.get_tensor_dtype(name))), self.shapes[name])
            for name in self.engine.inputs
        }

    def get_tensor_shape(self, name):
        outputs = self.session.run([name], self._feed(lambda _, dtype, shape: np.zeros(shape, dtype)))
        return outputs[0].shape

    def execute_async_v3(self, stream):
        if _fault("run"):
            return False
        feed = self._feed(
            lambda name, dtype, shape: np.frombuffer(
                ctypes.string_at(self.addresses[name], int(np.prod(shape)) * dtype.itemsize), dtype
            ).reshape(shape)
        )
        names = [output.name for output in self.session.get_outputs()]
        for name, array in zip(names, self.session.run(None, feed), strict=True):
            data = np.ascontiguousarray(array * (2 if _fault("wrong") else 1)).astype(array.dtype).tobytes()
            ctypes.memmove(self.addresses[name], data, len(data))
        return True
