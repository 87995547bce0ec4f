"""`export.custom_symbolics`: the user's own translations of operators. Imports torch.

The callable is called with the exporter's name ("torchscript" or "dynamo") and the opset, and gives
a mapping, or None where it has nothing for that exporter:

* torchscript: "aten::special_i1e" or "my_domain::op" to a symbolic function
  `(graph_context, *inputs) -> value`, as torch.onnx.register_custom_op_symbolic takes it. It is
  registered for one export and taken back afterwards.
* dynamo: an operator such as `torch.ops.my_domain.op.default` to an onnxscript function, as
  torch.onnx.export's custom_translation_table takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch

from pipeline.errors import StageFailed
from pipeline.exporters.opsets import Exporter

KEY: Final = "export.custom_symbolics"
Translations = Mapping[Any, Callable[..., Any]]


def translations(text: str | None, exporter: Exporter, opset: int, *, required: bool) -> Translations | None:
    """What the user's callable gives for an exporter.

    Args:
        text: export.custom_symbolics.
        exporter: which one.
        opset: what will be written.
        required: whether nothing is a mistake: the exporter was named, so nobody else would use it.

    Raises:
        Refused: the callable cannot be imported or raises.
        StageFailed: PL-307, it gives something else, or nothing although it has to.
    """
    if text is None:
        return None
    from pipeline.sources.user_code import call, find_callable

    found = call(text, KEY, find_callable(text, KEY), exporter, opset)
    if not found and not required:
        return None
    if not isinstance(found, Mapping) or not found or not all(callable(one) for one in found.values()):
        kinds = "operator names" if exporter == "torchscript" else "torch operators"
        raise StageFailed(
            "PL-307",
            f"{text} gives no translations for the exporter {exporter}",
            where=KEY,
            found=type(found).__name__ if not isinstance(found, Mapping) else f"{len(found)} entries",
            expected=f"a mapping from {kinds} to functions",
            next_step=f"Return one when the first argument is {exporter!r}, or name the other exporter",
        )
    if exporter == "torchscript" and not all(isinstance(name, str) and "::" in name for name in found):
        raise StageFailed(
            "PL-307",
            f"{text} names operators in a way that TorchScript does not know",
            where=KEY,
            found=", ".join(map(str, list(found)[:3])),
            expected="names such as aten::special_i1e",
        )
    return found


@contextmanager
def registered(found: Translations | None, opset: int) -> Iterator[None]:
    """Register symbolic functions of TorchScript for one export."""
    exporter: Any = torch.onnx  # public, but not in its list of typed names
    names = list(found or ())
    done = []
    try:
        for name in names:
            exporter.register_custom_op_symbolic(name, (found or {})[name], opset)
            done.append(name)
        yield
    finally:
        for name in done:
            exporter.unregister_custom_op_symbolic(name, opset)
