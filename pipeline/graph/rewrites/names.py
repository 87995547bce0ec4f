"""Every rule by name: where it stands. Imported without onnx and numpy, so that a misspelt name is refused early."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from pipeline.errors import Refused

_ROOM: Final = "pipeline.graph.rewrites"
#: Family module of lowering rules -> the names of its rules (its `RULES`, in their order).
LOWERING: Final[dict[str, tuple[str, ...]]] = {
    "lower_normalization": ("rms_normalization", "group_normalization", "group_normalization_18",
        "layer_normalization", "batch_normalization",),
    "lower_activation": ("swish", "gelu", "mish", "hard_swish", "celu", "thresholded_relu",),
    "lower_axes": ("split_parts", "reduction_axes", "reduce_sum_axes", "squeeze_axes", "split_sizes",
        "negative_axes", "negative_indices",),
    "lower_pad": ("pad_wrap", "pad_axes", "pad_truth", "clip_integers", "clip_limits", "pad_amounts",),
    "lower_slice": ("constant_numbers", "dropout_inference", "slice_backwards", "top_k_smallest",
        "slice_ranges", "top_k_count",),
    "lower_softmax": ("softmax_axis",),
    "lower_arithmetic": ("reduced_truth", "cast_like", "relu_integers", "small_integers",
        "extremes_of_integers", "power_types", "or_equal", "reduced_small_integers", "equal_numbers",
        "round", "gemm_without_bias", "modulo", "is_infinite",),
    "lower_shapes": ("shape_part", "reshape_zero", "triangle", "running_sum", "range", "depth_to_space",),
    "lower_pooling": ("pool_to_the_end",),
}  # fmt: skip
#: Family module of legalisation rules -> the names of its rules (its `RULES`, in their order).
LEGALISATION: Final[dict[str, tuple[str, ...]]] = {}
#: Rule -> (kind, family module).
NAMES: Final[dict[str, tuple[str, str]]] = {
    **{name: ("lower", f"{_ROOM}.{module}") for module, names in LOWERING.items() for name in names},
    **{name: ("legalise", f"{_ROOM}.{module}") for module, names in LEGALISATION.items() for name in names},
}
#: How many near names a refusal offers.
_OFFERED: Final = 3


def check_rules(given: Mapping[str, Any], *, key: str, kind: str) -> tuple[str, ...]:
    """The rules that a request switches off.

    Args:
        given: rule name to true or false.
        key: "export.rules" or "target.rules".
        kind: "lower" or "legalise"; a rule of the other kind has no effect under this key.

    Raises:
        Refused: PL-103, there is no such rule, it is of the other kind, or the value is no boolean.
    """
    known = sorted(name for name, (its_kind, _) in NAMES.items() if its_kind == kind)
    for name, value in given.items():
        if name not in known:
            raise _unknown(name, key, known)
        if not isinstance(value, bool):
            raise Refused(
                "PL-103", "a rule is switched on or off", where=f"{key}.{name}", found=repr(value),
                expected="true or false", next_step=f"Type {key}.{name}=false",
            )  # fmt: skip
    return tuple(sorted(name for name, value in given.items() if not value))


def _unknown(name: str, key: str, known: list[str]) -> Refused:
    if name in NAMES:
        other = {"export.rules": "target.rules", "target.rules": "export.rules"}[key]
        return Refused(
            "PL-103", f"{name} is no rule of {key}", where=f"{key}.{name}",
            expected=f"{other}.{name}", next_step=f"Type {other}.{name}=false",
        )  # fmt: skip
    near = get_close_matches(name, known, n=_OFFERED, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return Refused(
        "PL-103", "there is no such rule", where=f"{key}.{name}",
        next_step=f"{hint}Type python -m pipeline rules to see them",
    )  # fmt: skip
