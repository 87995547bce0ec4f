"""`export`: the parameters of the export. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

#: The opset when neither the user nor the target asks for one: the newest that TorchScript
#: writes with every operator that it knows, and that all backends here take.
DEFAULT_OPSET = 17


@dataclass(frozen=True)
class ExportConfig:
    """What torch.onnx.export is asked for, in one notation for both exporters."""

    opset: int | None = None  #: null: the target's preference, else DEFAULT_OPSET
    exporter: Literal["auto", "torchscript", "dynamo"] = "auto"
    input_names: tuple[str, ...] | None = None  #: may go on past the inputs to name parameters
    output_names: tuple[str, ...] | None = None  #: default: model.outputs
    external_data: Literal["auto", "always", "never"] = "auto"
    keep_initializers_as_inputs: bool = False
    export_params: bool = True
    do_constant_folding: bool = True
    training: Literal["eval", "train", "preserve"] = "eval"
    custom_opsets: dict[str, int] = field(default_factory=dict)  #: domain -> version
    ir_version: int | None = None  #: null: what the opset brings, or the target's limit
    verbose: bool = False  #: the exporter's own graph print goes to log.txt
    custom_symbolics: str | None = None  #: module:callable or file.py:callable; see exporters
    rules: dict[str, Any] = field(default_factory=dict)  #: rule name -> false switches it off
