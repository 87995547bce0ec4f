"""Build a TensorRT engine from an ONNX file, with TensorRT 10.x or 11.x: `python build.py`.

Needs the `tensorrt` package and an NVIDIA GPU, nothing else. settings.json beside this file says what is
built; the engine and the timing cache are written there too. Ends with 0 when the engine is there.

Types are strong: every tensor keeps the type that it has in the ONNX file, so that float16 is a matter of
the file. TensorRT 11 knows nothing else, and for 10 it is asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
#: From here on networks are always strongly typed, and the flag that asked for it means nothing.
ALWAYS_STRONG = 11
#: The oldest TensorRT that this was written for.
OLDEST = 10


class BuildError(Exception):
    """TensorRT made no engine; the text is one sentence. `node`, `operator`: what it named."""

    def __init__(self, text: str, node: str | None = None, operator: str | None = None) -> None:
        super().__init__(text)
        self.node, self.operator = node, operator


def build(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Build the engine into `folder`.

    Args:
        settings: as in settings.json; relative paths are below `folder`.
        folder: where the engine and the timing cache are written.

    Returns:
        what was read back: version, types of inputs and outputs, whether TF32 was off.

    Raises:
        BuildError: a version that this was not written for, a file that the parser does not take, a
            profile that it refuses, or no engine.
    """
    import tensorrt as trt

    major = int(trt.__version__.split(".")[0])
    if major < OLDEST:
        raise BuildError(f"TensorRT {trt.__version__} is too old: {OLDEST} or later is needed")
    engine_file, cache_file = folder / settings["engine"], folder / settings["timing_cache"]
    engine_file.unlink(missing_ok=True)

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    strong = 0 if major >= ALWAYS_STRONG else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strong)
    parser = trt.OnnxParser(network, logger)
    # By its path: external data is found beside the file.
    if not parser.parse_from_file(str((folder / settings["model"]).resolve())):
        raise _not_parsed(parser)

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(settings["workspace_mib"]) << 20)
    config.builder_optimization_level = int(settings["builder_optimization_level"])
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # on unless told: float32 with ten bits of mantissa
    if settings["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings["profiles"]:
        _add_profile(builder, config, settings["profiles"])
    # With the same timings the same kernels are chosen again; without a cache builds differ.
    cache = config.create_timing_cache(cache_file.read_bytes() if cache_file.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        cache_file.unlink(missing_ok=True)  # of another GPU or version
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)

    plan = builder.build_serialized_network(network, config)
    if plan is None:  # it does not raise
        raise BuildError("TensorRT built no engine; its log says why")
    data = bytes(plan)
    engine_file.write_bytes(data)
    cache_file.write_bytes(bytes(config.get_timing_cache().serialize()))

    engine = trt.Runtime(logger).deserialize_cuda_engine(data)
    if engine is None:
        raise BuildError("TensorRT does not load the engine that it built")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return {
        "version": trt.__version__,
        "engine_bytes": len(data),
        "tf32": bool(config.get_flag(trt.BuilderFlag.TF32)),
        "types": {name: str(engine.get_tensor_dtype(name)).rpartition(".")[2] for name in names},
        "inputs": [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT],
        "layer_types": layer_types(engine),
    }


def _not_parsed(parser: Any) -> BuildError:
    """Everything that the parser found, the first with its node."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        return BuildError("TensorRT's parser does not take the file and does not say why")

    def told(error: Any, name: str) -> str | None:
        try:
            return str(getattr(error, name)()) or None
        except (AttributeError, TypeError):
            return None

    texts = [told(error, "desc") or " ".join(str(error).split()) for error in errors]
    node, operator = told(errors[0], "node_name"), told(errors[0], "node_operator")
    where = f" at node {node or 'without a name'} ({operator})" if operator else ""
    return BuildError(f"TensorRT's parser does not take the file{where}: {'; '.join(texts)}", node, operator)


def _add_profile(builder: Any, config: Any, profiles: Mapping[str, Mapping[str, Any]]) -> None:
    profile = builder.create_optimization_profile()
    for name, sizes in profiles.items():
        profile.set_shape(name, tuple(sizes["min"]), tuple(sizes["opt"]), tuple(sizes["max"]))
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"TensorRT does not take the sizes {json.dumps(profiles)}")


def layer_types(engine: Any) -> dict[str, int]:
    """Element type to the number of layers that give it, as the engine's inspector says; empty when it does not."""
    import tensorrt as trt

    counts: dict[str, int] = {}
    try:
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        layers = json.loads(text).get("Layers", [])
    except (AttributeError, TypeError, ValueError):
        return counts
    for layer in layers:
        outputs = layer.get("Outputs", []) if isinstance(layer, dict) else []
        for output in outputs[:1]:
            said = str(output.get("Format/Datatype", output.get("Datatype", "")))
            for word, name in (
                ("FP16", "float16"),
                ("Half", "float16"),
                ("FP32", "float32"),
                ("Float", "float32"),
            ):
                if word in said:
                    counts[name] = counts.get(name, 0) + 1
                    break
    return counts


def main() -> int:
    """Build what settings.json says; 0 when the engine is there."""
    settings = json.loads((FOLDER / "settings.json").read_text(encoding="utf-8"))
    try:
        facts = build(settings, FOLDER)
    except ImportError as error:
        print(f"The tensorrt package cannot be imported: {error}", file=sys.stderr)
        return 1
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
