"""Reads the notation of `model.inputs`. No torch, no numpy: this runs before any work is done.

A leaf is `{shape, dtype: float32, fill: normal, dynamic: {}, pass: positional}`; a list of leaves
is a list argument, a mapping without `shape` and `fill` is a dict argument.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeGuard

from pipeline.config.build import literal, show
from pipeline.config.schema import near
from pipeline.errors import Refused
from pipeline.samples.files import FileContent, look
from pipeline.samples.spec import Argument, Axis, Fill, InputSpecs, TensorSpec, Tree

LEAF_KEYS: Final = ("shape", "dtype", "fill", "dynamic", "pass")
AXIS_KEYS: Final = ("name", "min", "max", "multiple_of")
FILLS: Final = ("normal", "uniform", "integers", "constant", "file")
#: Element types that both numpy and the ONNX runtimes take, with their size in bytes.
ITEM_SIZES: Final = {
    "float32": 4, "float16": 2, "float64": 8, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1,
}  # fmt: skip
#: A larger sample is taken for a slip of the hand (a batch of 10,000 images has 6 GB).
LARGEST_BYTES: Final = 4 << 30
#: More dimensions than numpy and ONNX Runtime kernels take.
LARGEST_RANK: Final = 16
#: Lists and dicts inside each other, at most.
DEEPEST: Final = 8
#: Whole numbers up to here are exact as float64, in which `Fill` holds them.
EXACT: Final = 1 << 53

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/\-]{0,199}")
_EXAMPLE: Final = "{shape: [1,3,224,224]}"


def parse(node: Any, key: str) -> InputSpecs:
    """See `pipeline.samples.spec.parse_inputs`."""
    if not isinstance(node, Mapping):
        raise Refused(
            "PL-200", f"{key} maps each input's name to its description", where=key, found=show(node),
            next_step=f"Type '{key}={{input1: {_EXAMPLE}}}'",
        )  # fmt: skip
    if not node:
        raise Refused(
            "PL-206", "the network has no inputs", where=key,
            next_step=f"Type '{key}={{input1: {_EXAMPLE}}}'",
        )  # fmt: skip
    if "shape" in node and not isinstance(node["shape"], Mapping):
        raise Refused(
            "PL-200", f"{key} describes a tensor but does not name it", where=key,
            next_step=f"Type '{key}={{input1: {literal(node)}}}'",
        )  # fmt: skip
    arguments = tuple(_argument(name, value, key) for name, value in node.items())
    _order(arguments, key)
    specs = InputSpecs(arguments)
    _no_clash(specs, key)
    return _shared_axes(specs, key)


def _argument(name: Any, node: Any, key: str) -> Argument:
    name = _name(name, key, "an input's name")
    here = f"{key}.{name}"
    passings: dict[str, str] = {}
    tree = _tree(name, node, here, passings, 0)
    if len(set(passings.values())) > 1:
        raise Refused(
            "PL-200", "the tensors of one argument are passed together", where=here,
            found=", ".join(f"{leaf} {how}" for leaf, how in passings.items()),
            expected="the same pass for all of them",
        )  # fmt: skip
    passing: Literal["positional", "keyword"] = "keyword" if "keyword" in passings.values() else "positional"
    if passing == "keyword" and (not name.isidentifier() or keyword.iskeyword(name)):
        raise Refused(
            "PL-200", "a keyword argument has the name of a Python parameter", where=here, found=name,
            next_step=f"Name it as the network's forward does, or leave pass: keyword out of {here}",
        )  # fmt: skip
    return Argument(name, tree, passing)


def _order(arguments: Sequence[Argument], key: str) -> None:
    keyword_first = next((index for index, one in enumerate(arguments) if one.passing == "keyword"), None)
    if keyword_first is None:
        return
    for later in arguments[keyword_first:]:
        if later.passing == "positional":
            before = arguments[keyword_first].name
            raise Refused(
                "PL-200", "positional inputs come before keyword inputs", where=f"{key}.{later.name}",
                found=f"{later.name} after {before}",
                next_step=f"Give {key}.{later.name} pass: keyword, or put it before {before}",
            )  # fmt: skip


def _tree(name: str, node: Any, here: str, passings: dict[str, str], depth: int) -> Tree:
    if depth > DEEPEST:
        raise Refused("PL-200", "lists and dicts lie too deep in each other", where=here)
    if isinstance(node, (list, tuple)):
        if not node:
            raise Refused(
                "PL-200", "a list argument has at least one tensor", where=here, found="an empty list",
                next_step=f"Type '{here}=[{_EXAMPLE}]'",
            )  # fmt: skip
        if all(_is_whole(size) for size in node):
            raise Refused(
                "PL-200", "an input is described by a mapping, not by its shape alone", where=here,
                found=literal(node), next_step=f"Type '{here}={{shape: {literal(node)}}}'",
            )  # fmt: skip
        return tuple(
            _tree(f"{name}_{index}", inner, f"{here}[{index}]", passings, depth + 1)
            for index, inner in enumerate(node)
        )
    if not isinstance(node, Mapping):
        raise Refused(
            "PL-200", "an input is described by a mapping, a list or a dict of such", where=here,
            found=show(node), expected=_EXAMPLE, next_step=f"Type '{here}={_EXAMPLE}'",
        )  # fmt: skip
    if "shape" in node or "fill" in node:
        spec, passing = _leaf(name, node, here)
        passings[name] = passing
        return spec
    if not node:
        raise Refused("PL-200", "an input needs its shape", where=here, next_step=f"Type '{here}={_EXAMPLE}'")
    mistaken = [word for word in node if word in LEAF_KEYS or _near_leaf_key(word, node[word])]
    if mistaken:
        raise Refused(
            "PL-200", "an input needs its shape", where=here, found=f"only {', '.join(map(str, node))}",
            next_step=f"Add shape: [...] to {here}{_did_you_mean(mistaken[0], LEAF_KEYS)}",
        )  # fmt: skip
    return {
        _branch_name(branch, here): _tree(f"{name}_{branch}", inner, f"{here}.{branch}", passings, depth + 1)
        for branch, inner in node.items()
    }


def _near_leaf_key(word: Any, value: Any) -> bool:
    """Whether a key of what looks like a dict argument is a misspelt key of a tensor."""
    return not isinstance(value, (Mapping, list, tuple)) or (
        isinstance(word, str) and bool(near(word, LEAF_KEYS)) and not isinstance(value, Mapping)
    )


def _branch_name(branch: Any, here: str) -> str:
    if not isinstance(branch, str) or not _NAME.fullmatch(branch):
        raise Refused("PL-200", "a key of a dict argument is a name", where=here, found=show(branch))
    return branch


def _leaf(name: str, node: Mapping[Any, Any], here: str) -> tuple[TensorSpec, str]:
    for word in node:
        if word not in LEAF_KEYS:
            raise Refused(
                "PL-200", f"a tensor has no key {word}", where=here,
                expected=", ".join(LEAF_KEYS), next_step=_did_you_mean(word, LEAF_KEYS).lstrip(". "),
            )  # fmt: skip
    passing = node.get("pass") or "positional"
    if passing not in ("positional", "keyword"):
        raise Refused(
            "PL-200", "pass says how the argument is handed over", where=f"{here}.pass", found=show(passing),
            expected="positional or keyword", next_step=f"Type {here}.pass=keyword",
        )  # fmt: skip
    fill, content = _fill(node.get("fill", "normal"), f"{here}.fill", name)
    dtype = _dtype(node.get("dtype", content.dtype if content else "float32"), f"{here}.dtype")
    if node.get("shape") is not None:
        shape = _shape(node["shape"], f"{here}.shape")
    elif content is not None and content.shape is not None:
        shape = content.shape
    else:
        raise Refused(
            "PL-201", "an input needs its shape", where=here, next_step=f"Add shape: [...] to {here}"
        )
    _size(shape, dtype, here)
    if content is not None:
        _fits_file(content, shape, dtype, here)
    _fill_fits(fill, dtype, f"{here}.fill", given="fill" in node)
    dynamic = _dynamic(node.get("dynamic"), shape, f"{here}.dynamic")
    return TensorSpec(name, shape, dtype, fill, dynamic), passing


def _name(value: Any, key: str, what: str) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise Refused(
        "PL-200", f"{what} begins with a letter or _ and goes on with letters, digits and _ . : / -",
        where=key, found=show(value),
    )  # fmt: skip


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[int | float]:
    if _is_whole(value):
        return abs(value) <= EXACT
    return isinstance(value, float) and math.isfinite(value)


def _shape(node: Any, here: str) -> tuple[int, ...]:
    if not isinstance(node, (list, tuple)):
        sizes = re.findall(r"\d+", node) if isinstance(node, str) else []
        raise Refused(
            "PL-201", "a shape is a list of sizes", where=here, found=show(node),
            next_step=f"Type {here}=[{','.join(sizes) or '1,3,224,224'}]",
        )  # fmt: skip
    if len(node) > LARGEST_RANK:
        raise Refused(
            "PL-201", "a tensor has too many dimensions", where=here, found=str(len(node)),
            expected=f"at most {LARGEST_RANK}",
        )  # fmt: skip
    for index, size in enumerate(node):
        if not _is_whole(size) or size < 1:
            dynamic = (
                f"; a dynamic axis has its example size here and {here.removesuffix('shape')}dynamic names it"
            )
            raise Refused(
                "PL-201", "a size is a whole number from 1", where=f"{here}[{index}]", found=show(size),
                next_step="Give the size that the export uses" + dynamic,
            )  # fmt: skip
    return tuple(node)


def _size(shape: tuple[int, ...], dtype: str, here: str) -> None:
    taken = math.prod(shape) * ITEM_SIZES[dtype]
    if taken > LARGEST_BYTES:
        raise Refused(
            "PL-201", "the input is too large", where=here, found=f"{taken / 2**30:.3g} GiB",
            expected=f"at most {LARGEST_BYTES >> 30} GiB", next_step="Use smaller sizes for the export",
        )  # fmt: skip


def _dtype(node: Any, here: str) -> str:
    if isinstance(node, str) and node in ITEM_SIZES:
        return node
    text = str(node)
    plain = text.removeprefix("torch.")
    if plain in ITEM_SIZES:
        step = f"Type {here}={plain}"
    else:
        step = _did_you_mean(plain, ITEM_SIZES).lstrip(". ")
    if plain == "bfloat16":
        step = "bfloat16 inputs have no numpy type: give float32 and cast inside the network"
    raise Refused(
        "PL-202", f"there is no element type {text}", where=here, expected=", ".join(ITEM_SIZES),
        next_step=step or None,
    )  # fmt: skip


def _fill(node: Any, here: str, name: str) -> tuple[Fill, FileContent | None]:
    forms = "normal, {uniform: [0,1]}, {integers: [0,10]}, {constant: 1} or {file: x.npy}"
    if node == "normal" or node is None:
        return Fill(), None
    if isinstance(node, str):
        known = node in FILLS
        raise Refused(
            "PL-202", f"the fill {node} needs a value" if known else f"there is no fill {node}",
            where=here, expected=forms, next_step=_did_you_mean(node, FILLS).lstrip(". ") or None,
        )  # fmt: skip
    if not isinstance(node, Mapping) or len(node) != 1:
        raise Refused(
            "PL-202", "a fill is one word or one pair", where=here, found=show(node), expected=forms
        )
    kind, value = next(iter(node.items()))
    if kind in ("uniform", "integers"):
        return _range(kind, value, here), None
    if kind == "constant":
        if isinstance(value, bool):
            return Fill("constant", value=float(value)), None
        if not _is_number(value):
            raise Refused(
                "PL-202", "a constant is a finite number", where=f"{here}.constant", found=show(value)
            )
        return Fill("constant", value=float(value)), None
    if kind == "file":
        if not isinstance(value, str) or not value:
            raise Refused("PL-202", "a file is named by its path", where=f"{here}.file", found=show(value))
        return Fill("file", path=value), look(value, name, f"{here}.file")
    if kind == "normal":
        raise Refused(
            "PL-202", "normal has mean 0 and standard deviation 1 and takes no value", where=here,
            found=show(value), next_step=f"Type {here}=normal",
        )  # fmt: skip
    raise Refused(
        "PL-202", f"there is no fill {kind}", where=here, expected=forms,
        next_step=_did_you_mean(kind, FILLS).lstrip(". ") or None,
    )  # fmt: skip


def _range(kind: Literal["uniform", "integers"], value: Any, here: str) -> Fill:
    here = f"{here}.{kind}"
    example = "[0,1]" if kind == "uniform" else "[0,10]"
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(map(_is_number, value)):
        raise Refused(
            "PL-202", f"{kind} takes a lower and an upper bound", where=here, found=show(value),
            expected="two finite numbers", next_step=f"Type '{here}={example}'",
        )  # fmt: skip
    low, high = value
    if kind == "integers" and not all(float(bound).is_integer() for bound in value):
        raise Refused("PL-202", "the bounds of integers are whole numbers", where=here, found=literal(value))
    if low >= high:
        raise Refused(
            "PL-202", "the lower bound lies below the upper one", where=here, found=literal(value),
            next_step=f"Type '{here}=[{literal(high)},{literal(low)}]'" if high < low else None,
        )  # fmt: skip
    return Fill(kind, low=float(low), high=float(high))


def integer_range(dtype: str) -> tuple[int, int] | None:
    """Smallest and largest value of an integer or boolean type; None for floating types."""
    if dtype == "bool":
        return 0, 1
    if dtype.startswith("float"):
        return None
    bits = 8 * ITEM_SIZES[dtype]
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _fill_fits(fill: Fill, dtype: str, here: str, *, given: bool) -> None:
    bounds = integer_range(dtype)
    largest = {"float16": 65504.0, "float32": 3.4e38}.get(dtype, math.inf)
    if fill.kind == "file":
        return
    if bounds is None:
        values = (fill.low, fill.high) if fill.kind in ("uniform", "integers") else (fill.value,)
        outside = any(abs(value) > largest for value in values)
    elif fill.kind in ("normal", "uniform"):
        suggestion = {"bool": "[0,2]", "uint8": "[0,256]"}.get(dtype, "[0,10]")
        raise Refused(
            "PL-202",
            f"{fill.kind} does not fit {dtype}" if given else f"an input of type {dtype} needs its fill",
            where=here, expected="{integers: [lo,hi]} with hi excluded, {constant: v} or {file: x.npy}",
            next_step=f"Type '{here}={{integers: {suggestion}}}'",
        )  # fmt: skip
    elif fill.kind == "integers":
        outside = fill.low < bounds[0] or fill.high - 1 > bounds[1]
    else:
        outside = not bounds[0] <= fill.value <= bounds[1] or not fill.value.is_integer()
    if outside:
        span = f"{bounds[0]} to {bounds[1]}" if bounds else f"up to {largest:g}"
        raise Refused("PL-202", f"the fill does not fit {dtype}", where=here, expected=f"values from {span}"
                      if bounds else f"values {span}")  # fmt: skip


def _fits_file(content: FileContent, shape: tuple[int, ...], dtype: str, here: str) -> None:
    if content.kind == "image":
        channels = shape[-3] if len(shape) in (3, 4) else 0
        if channels not in (1, 3, 4) or (len(shape) == 4 and shape[0] < 1):
            raise Refused(
                "PL-205", "an image fills [channels,height,width] or [batch,channels,height,width]",
                where=f"{here}.shape", found=literal(shape), expected="1, 3 or 4 channels",
            )  # fmt: skip
        if not dtype.startswith("float") and dtype != "uint8":
            raise Refused(
                "PL-205", f"an image does not fill {dtype}", where=f"{here}.dtype",
                expected="uint8 (0 to 255) or a floating type (0 to 1)",
            )  # fmt: skip
        return
    if content.dtype != dtype:
        raise Refused(
            "PL-205", "the file holds another element type", where=f"{here}.dtype", found=content.dtype,
            expected=dtype, next_step=f"Type {here}.dtype={content.dtype}",
        )  # fmt: skip
    if content.shape != shape:
        raise Refused(
            "PL-205", "the file holds another shape", where=f"{here}.shape", found=literal(content.shape),
            expected=literal(shape), next_step=f"Type {here}.shape={literal(content.shape)}",
        )  # fmt: skip


def _dynamic(node: Any, shape: tuple[int, ...], here: str) -> dict[int, Axis]:
    if node is None:
        return {}
    if not isinstance(node, Mapping):
        raise Refused(
            "PL-203", "dynamic maps an axis to its name", where=here, found=show(node),
            next_step=f"Type '{here}={{0: batch}}'",
        )  # fmt: skip
    axes = {}
    for written, value in node.items():
        short = isinstance(written, str) and re.fullmatch(r"[0-9]{1,4}", written)
        index = int(written) if short else written
        if not _is_whole(index) or not 0 <= index < len(shape):
            span = f"0 to {len(shape) - 1}" if shape else "no axis: the tensor is a scalar"
            raise Refused(
                "PL-203", "there is no such axis", where=here, found=show(index), expected=span,
                next_step=f"Type '{here}={{{len(shape) + index}: {literal(value)}}}'"
                if _is_whole(index) and -len(shape) <= index < 0 else None,
            )  # fmt: skip
        if index in axes:
            raise Refused("PL-203", "an axis is given twice", where=here, found=str(index))
        axes[index] = _axis(value, shape[index], f"{here}.{index}")
    return dict(sorted(axes.items()))


@dataclass(frozen=True)
class _NamedAxis(Axis):
    """An axis given by its name alone: it takes the range that is given elsewhere."""


def _axis(node: Any, size: int, here: str) -> Axis:
    if isinstance(node, str):
        return _NamedAxis(_axis_name(node, here))
    if not isinstance(node, Mapping):
        raise Refused(
            "PL-203", "a dynamic axis is a name, or a mapping with its name and range", where=here,
            found=show(node), next_step=f"Type '{here}=batch'",
        )  # fmt: skip
    for word in node:
        if word not in AXIS_KEYS:
            raise Refused(
                "PL-203", f"a dynamic axis has no key {word}", where=here, expected=", ".join(AXIS_KEYS),
                next_step=_did_you_mean(word, AXIS_KEYS).lstrip(". ") or None,
            )  # fmt: skip
    if "name" not in node:
        raise Refused("PL-203", "a dynamic axis has a name", where=here, next_step=f"Type {here}.name=batch")
    bounds: dict[str, int] = {}
    for word in AXIS_KEYS[1:]:
        if node.get(word) is None:
            continue
        if not _is_whole(node[word]) or not 1 <= node[word] < 2**31:
            raise Refused(
                "PL-203", f"{word} is a whole number from 1", where=f"{here}.{word}", found=show(node[word])
            )
        bounds[word] = node[word]
    axis = Axis(_axis_name(node["name"], here), **bounds)
    _in_range(axis, size, here)
    return axis


def _axis_name(value: Any, here: str) -> str:
    # An identifier, because torch.export makes a Python symbol of it.
    if isinstance(value, str) and value.isascii() and value.isidentifier() and not keyword.iskeyword(value):
        return value
    raise Refused("PL-203", "an axis has a name of letters, digits and _", where=here, found=show(value))


def _in_range(axis: Axis, size: int, here: str) -> None:
    step = axis.multiple_of
    first = math.ceil(axis.min / step) * step
    if axis.max is not None and axis.max // step * step < first + step:
        raise Refused(
            "PL-203", "the range holds fewer than two sizes, so the axis is not dynamic", where=here,
            found=f"min {axis.min}, max {axis.max}, multiple_of {step}",
        )  # fmt: skip
    if size < axis.min or (axis.max is not None and size > axis.max) or size % step:
        allowed = f"{axis.min} to {axis.max}" if axis.max is not None else f"{axis.min} or more"
        raise Refused(
            "PL-203", f"the example size of axis {axis.name} does not fit its range", where=here,
            found=str(size), expected=allowed + (f" in steps of {step}" if step > 1 else ""),
        )  # fmt: skip


def _no_clash(specs: InputSpecs, key: str) -> None:
    seen: dict[str, str] = {}
    for argument in specs.arguments:
        for leaf in InputSpecs((argument,)).leaves:
            if leaf.name in seen:
                raise Refused(
                    "PL-204", "two inputs have the same name in the graph", where=key, found=leaf.name,
                    expected=f"different names from {seen[leaf.name]} and {argument.name}",
                    next_step=f"Rename {argument.name}; tensors of a list or dict are named "
                    f"{argument.name}_0, {argument.name}_KEY",
                )  # fmt: skip
            seen[leaf.name] = argument.name


def _shared_axes(specs: InputSpecs, key: str) -> InputSpecs:
    """One name is one size: every axis of a name gets the range that is given somewhere."""
    full: dict[str, Axis] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for leaf in specs.leaves:
        for index, axis in leaf.dynamic.items():
            size, first = sizes.setdefault(axis.name, (leaf.shape[index], leaf.name))
            if size != leaf.shape[index]:
                raise Refused(
                    "PL-204", f"axis {axis.name} has two sizes", where=key,
                    found=f"{size} in {first} and {leaf.shape[index]} in {leaf.name}",
                    next_step="Give both the same example size, or the axes different names",
                )  # fmt: skip
            if isinstance(axis, _NamedAxis):
                continue
            if full.setdefault(axis.name, axis) != axis:
                raise Refused(
                    "PL-204", f"axis {axis.name} has two ranges", where=key,
                    found=f"{_words(full[axis.name])} and {_words(axis)}",
                    next_step="Give the range once; elsewhere the name is enough",
                )  # fmt: skip
    for name, axis in full.items():
        _in_range(axis, sizes[name][0], key)

    def filled(tree: Tree) -> Tree:
        if isinstance(tree, TensorSpec):
            return replace(
                tree,
                dynamic={index: full.get(axis.name, Axis(axis.name)) for index, axis in tree.dynamic.items()},
            )
        if isinstance(tree, dict):
            return {branch: filled(inner) for branch, inner in tree.items()}
        return tuple(filled(inner) for inner in tree)

    return InputSpecs(tuple(replace(one, tree=filled(one.tree)) for one in specs.arguments))


def _words(axis: Axis) -> str:
    return f"{axis.min}..{'' if axis.max is None else axis.max}" + (
        f" in steps of {axis.multiple_of}" if axis.multiple_of > 1 else ""
    )


def _did_you_mean(word: Any, known: Iterator[str] | Sequence[str] | Mapping[str, Any]) -> str:
    close = near(str(word), list(known), limit=1)
    return f". Did you mean {close[0]}?" if close and close[0] != word else ""
