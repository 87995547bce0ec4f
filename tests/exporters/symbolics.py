"""What export.custom_symbolics may name."""

from __future__ import annotations


def build(exporter, opset):
    if exporter == "torchscript":
        return {"aten::special_i1e": lambda g, x: g.op("com.example::BesselI1e", x).setType(x.type())}
    import onnx.defs
    import onnxscript
    import torch

    schema = onnx.defs.OpSchema(
        "BesselI1e", "com.example", 1,
        inputs=[onnx.defs.OpSchema.FormalParameter("x", "T")],
        outputs=[onnx.defs.OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
    )  # fmt: skip
    bessel = onnxscript.values.Op(onnxscript.values.Opset("com.example", 1), "BesselI1e", schema)
    return {torch.ops.prims.bessel_i1e.default: bessel}


def nothing(exporter, opset):
    return None


def misnamed(exporter, opset):
    return {"special_i1e": lambda g, x: x}
