"""The closed set of names that a limit may use, with the kind of value that each stands for.

Everything is about one node. Axes are NCHW by letter (N, C, D, H, W of the first input; with `_out` of
the first output). A limit that uses a name that is not here, and no attribute of its operator, is
refused when the profile is loaded. The values are computed by `pipeline.targets.node_facts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["number", "numbers", "text", "dtype", "operator", "truth"]

#: Element types by numpy's names; "string" and the small floats as ONNX calls them.
DTYPES: Final = frozenset((
    "float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "int4", "uint8",
    "uint16", "uint32", "uint64", "uint4", "bool", "complex64", "complex128", "string", "float8e4m3fn",
    "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0", "float4e2m1", "float6e2m3",
    "float6e3m2", "int2", "uint2",
))  # fmt: skip

#: Name -> kind, what it is.
VARIABLES: Final[dict[str, tuple[Kind, str]]] = {
    "opset": ("number", "version of the operator set in the file"),
    "rank": ("number", "number of axes of the first input"),
    "rank_out": ("number", "of the first output"),
    "ranks": ("numbers", "of every input that is given"),
    "nonsingleton_rank": ("number", "axes of the first activation whose size is not 1"),
    "N": ("number", "first axis of the first input"),
    "C": ("number", "second axis"),
    "D": ("number", "third axis of rank 5"),
    "H": ("number", "second last axis of rank 4 or 5"),
    "W": ("number", "last axis of rank 3, 4 or 5"),
    "N_out": ("number", "first axis of the first output"),
    "C_out": ("number", "its second axis"),
    "H_out": ("number", "its second last axis"),
    "W_out": ("number", "its last axis"),
    "dims": ("numbers", "sizes of the first input"),
    "dims_out": ("numbers", "sizes of the first output"),
    "elements": ("number", "of the first input"),
    "elements_out": ("number", "of the first output"),
    "channels": ("numbers", "second axis of every input"),
    "source_h": ("number", "height of the plane that a Flatten or Reshape in front flattened, else 1"),
    "source_w": ("number", "its width"),
    "source_c": ("number", "its channels, else the second axis"),
    "all_dims": ("numbers", "sizes of every input and output"),
    "inputs": ("number", "how many inputs are given"),
    "outputs": ("number", "how many outputs are given"),
    "input_slots": ("number", "inputs up to the last that is given, gaps included"),
    "activations": ("number", "inputs that are no constants"),
    "constants": ("number", "inputs that are constants"),
    "dtype": ("dtype", "element type of the first input (of the output where there is none)"),
    "dtype_out": ("dtype", "element type of the first output"),
    "dtypes": ("dtype", "of every input that is given and every output"),
    "activation_dtypes": ("dtype", "of every activation and every output"),
    "to": ("dtype", "what a Cast casts to"),
    "kernel_h": ("number", "height of the kernel; 1 where it has none"),
    "kernel_w": ("number", "width of the kernel"),
    "kernel_d": ("number", "depth of the kernel (rank 5)"),
    "kernels": ("numbers", "sizes of the kernel"),
    "stride_h": ("number", "stride along the height"),
    "stride_w": ("number", "along the width"),
    "strides": ("numbers", "strides"),
    "dilation_h": ("number", "dilation along the height"),
    "dilation_w": ("number", "along the width"),
    "dilations": ("numbers", "dilations"),
    "pad_h": ("number", "greater padding of the height, begin or end"),
    "pad_w": ("number", "of the width"),
    "pad_d": ("number", "of the depth"),
    "pads": ("numbers", "paddings: all begins, then all ends (input or attribute)"),
    "pads_even": ("truth", "every axis is padded alike at begin and end"),
    "padded_axes": ("numbers", "Pad: the axes that it changes"),
    "output_paddings": ("numbers", "ConvTranspose: extra rows at the end"),
    "group": ("number", "groups of a convolution"),
    "cin": ("number", "input channels of a convolution"),
    "cout": ("number", "its output channels"),
    "weight_n": ("number", "first axis of the second input"),
    "weight_c": ("number", "its second axis"),
    "spatial": ("number", "axes that the kernel slides over"),
    "depthwise": ("truth", "as many groups as input channels, more than one"),
    "axis": ("number", "the axis, counted from 0"),
    "axis_from_end": ("number", "the axis, counted from -1 for the last"),
    "axes": ("numbers", "axes (input or attribute), counted from 0, sorted"),
    "axes_from_end": ("numbers", "axes, counted from -1"),
    "axes_given": ("truth", "axes are stated"),
    "reduced": ("numbers", "sizes of the axes that a reduction removes"),
    "axis_size": ("number", "size of the axis"),
    "perm": ("numbers", "order of a Transpose"),
    "scales": ("numbers", "Resize: output size by input size, each axis"),
    "scale_h": ("number", "of the height"),
    "scale_w": ("number", "of the width"),
    "parts": ("numbers", "Split: sizes of the parts"),
    "steps": ("numbers", "Slice: steps"),
    "sliced_axes": ("numbers", "Slice: axes"),
    "changed_dims": ("number", "axes whose size differs between first input and first output"),
    "clip_min": ("number", "Clip: lower bound (input or attribute)"),
    "clip_max": ("number", "Clip: upper bound"),
    "same_shape": ("truth", "all inputs have the same shape"),
    "one_input_scalar": ("truth", "an input has one element"),
    "broadcast": ("truth", "the inputs' shapes broadcast as numpy's do"),
    "one_sided": ("truth", "an input has the output's shape: the others alone are broadcast"),
    "collapsed_rank": ("number", "axes left when neighbours that are broadcast alike are merged"),
    "collapsed_rank_apart": ("number", "the same, where an axis that is broadcast merges with none"),
    "batch_broadcast_left": (
        "text",
        "MatMul: which leading axes of the first input are broadcast: none, all, trailing, mixed",
    ),
    "batch_broadcast_right": ("text", "of the second input"),
    "indices_within": ("truth", "indices are no longer than the data, but along the axis"),
    "residual": ("truth", "an Add of two activations takes the output"),
    "is_input": ("truth", "it takes an input of the model"),
    "is_output": ("truth", "it gives an output of the model"),
    "requested": (
        "truth",
        "target.options asks for the accelerator by the node's name (run_on_bpu, node_info)",
    ),
    "batch_kept": ("truth", "Transpose: the first axis stays first"),
}

#: Name -> kinds of the arguments, kind of the value, what it is. "word" is a name without quotes,
#: "numbers" takes a number too; a last kind ending with * may come again.
FUNCTIONS: Final[dict[str, tuple[tuple[str, ...], Kind, str]]] = {
    "rank": (("number",), "number", "rank(1): number of axes of the second input"),
    "dim": (("number", "number"), "number", "dim(1, 0): size of an input's axis; the axis may be negative"),
    "shape": (("number",), "numbers", "shape(1): sizes of an input"),
    "size": (("number",), "number", "size(1): elements of an input"),
    "dtype": (("number",), "dtype", "dtype(1): element type of an input"),
    "constant": (("number",), "truth", "constant(1): the input is a constant"),
    "given": (("number",), "truth", "given(1): the input is given"),
    "output_given": (("number",), "truth", "output_given(1): the output is given"),
    "value": (("number",), "numbers", "value(1): the elements of a constant input, a number if it has one"),
    "attribute_set": (("word",), "truth", "attribute_set(auto_pad): the attribute is stated"),
    "attributes_only": (("word*",), "truth", "attributes_only(pads, group): no other attribute is stated"),
    "feeds": (("operator",), "truth", "feeds(Add): an operator that takes the output is an Add"),
    "produced_by": (("operator",), "truth", "produced_by(Conv): an input comes from a Conv"),
    "count": (("numbers",), "number", "count(axes): how many"),
    "product": (("numbers",), "number", "product(dims): all multiplied"),
    "equal": (("numbers",), "truth", "equal(parts): all alike"),
    "tail": (("numbers", "number"), "numbers", "tail(dims, 1): without the first"),
    "head": (("numbers", "number"), "numbers", "head(dims, 2): without the last two"),
    "round_up": (("number", "number"), "number", "round_up(C, 4): to the next multiple"),
    "power_of_two": (("numbers",), "truth", "power_of_two(scale_h)"),
    "whole": (("numbers",), "truth", "whole(scales): integers"),
    "min": (("number", "number*"), "number", "the least"),
    "max": (("number", "number*"), "number", "the greatest"),
    "forms": (("text*",), "truth",
              "forms('NCHW+NC11', ...): shapes of the first two inputs; a digit is that size, a letter the same size wherever it stands, a small letter more than 1"),
    "ordered_forms": (("text*",), "truth", "the same, not the other way round"),
}  # fmt: skip


@dataclass(frozen=True)
class Names:
    """What a limit of one operator may name.

    Attributes:
        attributes: the operator's attributes and their kinds.
        operators: names of operators.
    """

    attributes: dict[str, Kind]
    operators: frozenset[str]

    def kind(self, name: str) -> Kind | None:
        """Of a variable or an attribute; None: there is no such name."""
        if name in VARIABLES:
            return VARIABLES[name][0]
        return self.attributes.get(name)

    def known(self) -> tuple[str, ...]:
        """Every name, for messages."""
        return (*VARIABLES, *FUNCTIONS, *self.attributes)
