"""The resolved configuration as typed data, and which part of it is the request.

A *request* says what is wanted. How it is shown, where it is put and how fast is not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

# The rooms' own config.py files are torch-free leaves; this file only gathers them.
from pipeline.exporters.config import ExportConfig
from pipeline.graph.config import CheckConfig, SimplifyConfig, SurgeryConfig
from pipeline.parity.config import ParityConfig
from pipeline.run.config import CacheConfig
from pipeline.sources.config import ModelConfig
from pipeline.targets.config import TargetConfig


@dataclass(frozen=True)
class Config:
    """Everything that a command line can set."""

    model: ModelConfig = field(default_factory=ModelConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    surgery: SurgeryConfig = field(default_factory=SurgeryConfig)
    simplify: SimplifyConfig = field(default_factory=SimplifyConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
    parity: ParityConfig = field(default_factory=ParityConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    seed: int = 0  #: weights and samples draw from separate streams derived from it
    device: Literal["cpu", "cuda"] = "cpu"
    out: str = "outputs"  #: where run directories are put
    force: bool = False  #: make it again beside the old one and compare
    wait_s: float = 600.0  #: how long to wait for another run of the same request, seconds
    timeout_s: float | None = None  #: a point that takes longer has failed, seconds
    memory_limit: str | None = None  #: a point that takes more has failed: 8GB
    sweep: str | None = None  #: name of the sweep's folder
    dry_run: bool = False  #: print the plan and what is cached
    debug: bool = False  #: show tracebacks
    private_apis: bool = True  #: false: only public interfaces of torch and onnxsim (slower, same bytes)


#: Top-level keys that are the request.
REQUEST_KEYS: Final = (
    "model", "export", "surgery", "simplify", "check", "parity", "target", "seed", "device",
)  # fmt: skip
#: The part of the request that shapes the ONNX file.
GRAPH_KEYS: Final = ("model", "export", "surgery", "simplify", "seed")
