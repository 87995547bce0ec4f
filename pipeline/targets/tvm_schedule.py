"""A schedule by rule for every kernel: TVM's own pipeline for processors leaves plain nested loops.

Three rules, tried on each function after operators have been fused:

* elementwise: the loops are one parallel loop, the innermost axis is vectorised.
* one reduction (convolution, matrix product, pooling, mean): the consumer is tiled into `width` places
  of the last but one axis by `lanes` elements of the last; the reduction is computed into such a tile,
  which stays in registers, and what follows it (bias, activation) is applied while it is there.
* several reductions (softmax, layer normalisation): their leading axes are one parallel loop.

Convolutions are in NHWC by then (see `pipeline.targets.tvm`), so that the last axis is the channels.
A function that no rule fits stays as it is; the statistics say which. No tuning: the same graph gives
the same schedule on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: Elements of float32 that a tile's last axis may have, largest first.
LANES: Final = (32, 16, 8, 4)
#: Widest vector of an elementwise loop, elements.
ELEMENTWISE: Final = (16, 8, 4)
#: Longest side of a tile along the last but one axis.
WIDEST: Final = 16

_SPATIAL: Final = 0
_REDUCTION: Final = 2


@dataclass(frozen=True)
class Registers:
    """Vector registers of the processor: how many there are and how many float32 one holds."""

    lanes: int
    count: int


def registers_of(mcpu: str) -> Registers:
    """By the name that LLVM gives the processor; SSE2 where it is not known."""
    if mcpu in ("x86-64-v4", "znver4", "znver5", "skylake-avx512", "sapphirerapids", "icelake-server"):
        return Registers(16, 32)
    if mcpu in ("x86-64-v3", "haswell", "skylake", "znver1", "znver2", "znver3"):
        return Registers(8, 16)
    return Registers(4, 16)


@dataclass
class Statistics:
    """Which rule served which functions."""

    by_rule: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """How many each rule served; those that stayed unscheduled by name."""
        return {
            "functions": {rule: len(names) for rule, names in sorted(self.by_rule.items())},
            "unscheduled": sorted(self.by_rule.get("none", [])),
        }


def schedule_module(module: Any, registers: Registers) -> tuple[Any, Statistics]:
    """The module with every function scheduled that a rule fits."""
    from tvm import tirx

    statistics = Statistics()
    for variable, function in list(module.functions.items()):
        if not isinstance(function, tirx.PrimFunc):
            continue
        rule, scheduled = _schedule(function, registers)
        statistics.by_rule.setdefault(rule, []).append(variable.name_hint)
        if scheduled is not None:
            module[variable] = scheduled
    return module, statistics


def _schedule(function: Any, registers: Registers) -> tuple[str, Any]:
    """The rule that fits, and the function as it leaves it; `none` where none does."""
    import tvm
    from tvm import s_tir

    whole = tvm.IRModule({"main": function})
    for rule, apply in (("tiled", _tiled), ("parallel", _parallel)):
        schedule = s_tir.Schedule(whole)
        try:
            name = apply(schedule, registers) or rule
        # A primitive that does not fit says so in many ways (ScheduleError, ValueError, InternalError),
        # and leaves a schedule that is thrown away.
        except Exception:  # noqa: BLE001
            continue
        return name, schedule.mod["main"].with_attrs(dict(function.attrs or {}))
    return "none", None


class _DoesNotFitError(Exception):
    """The rule is for other functions."""


def _tiled(schedule: Any, registers: Registers) -> str | None:
    """Functions with at most one reduction."""
    _inline(schedule)
    blocks = _blocks(schedule)
    reductions = [block for block in blocks if _REDUCTION in _kinds(schedule, block)]
    if not reductions:
        for block in blocks:
            _elementwise(schedule, block)
        return "elementwise"
    if len(reductions) > 1:
        raise _DoesNotFitError
    reduction = reductions[0]
    kinds = _kinds(schedule, reduction)
    spatial = kinds.count(_SPATIAL)
    consumers = schedule.get_consumers(reduction)
    if (
        kinds != [_SPATIAL] * spatial + [_REDUCTION] * (len(kinds) - spatial)
        or not spatial
        or len(consumers) > 1
    ):
        raise _DoesNotFitError
    if consumers and schedule.get_consumers(consumers[0]):
        raise _DoesNotFitError
    own = {schedule.get(one).name_hint for one in (reduction, *consumers)}
    for block in blocks:
        if schedule.get(block).name_hint not in own:
            _elementwise(schedule, block)
    if not consumers:
        end = schedule.cache_write(reduction, 0, "local")
    elif len(schedule.get_loops(consumers[0])) == spatial:
        end = consumers[0]
    else:  # the consumer has another rank (a fused reshape): the tile is written before it
        end = schedule.cache_write(reduction, 0, "local")
        _elementwise(schedule, consumers[0])
    _tile(schedule, reduction, end, len(kinds), spatial, registers)
    return "tiled reduction"


def _tile(schedule: Any, reduction: Any, end: Any, axes: int, spatial: int, registers: Registers) -> None:
    loops = list(schedule.get_loops(end))
    channels = _extent(schedule, loops[-1])
    places = _extent(schedule, loops[-2]) if len(loops) > 1 else 1
    width, lanes = tile_of(places, channels, registers)
    blocks, lane = schedule.split(loops[-1], [None, lanes])
    place = None
    if len(loops) > 1:
        strips, place = schedule.split(loops[-2], [None, width])
        # Channels outside, so that the weights of a tile stay in the cache while places go by.
        order = [*loops[:1][: len(loops) - 2], blocks, *loops[1:-2], strips]
        schedule.reorder(*order, place, lane)
        outer, inner = (order[:-1], strips) if len(loops) > 2 else (order, None)
    else:
        outer, inner = [blocks], None
    innermost = _in_parallel(schedule, outer)
    schedule.compute_at(reduction, inner if inner is not None else innermost, preserve_unit_loops=True)
    own = list(schedule.get_loops(reduction))[-axes:]
    inside, summed = own[:spatial], own[spatial:]
    if lanes > 1:
        schedule.reorder(*summed, *inside)
        schedule.vectorize(lane)
        schedule.vectorize(inside[-1])
        if place is not None and width > 1:
            schedule.unroll(inside[-2])
            schedule.unroll(place)
    schedule.decompose_reduction(reduction, summed[0])


def tile_of(places: int | None, channels: int | None, registers: Registers) -> tuple[int, int]:
    """Sides of a tile: places of the last but one axis, elements of the last.

    The accumulators, a row of weights and one broadcast value fit into the registers; of those tiles
    the one that takes the fewest loads for a multiplication is taken, of equals the wider.

    Args:
        places: extent of the last but one axis; None where it is only known when the model runs.
        channels: extent of the last, likewise.
        registers: of the processor.
    """
    best = (0.0, 1, 1)
    if channels is None:
        return 1, 1
    for lanes in (one for one in LANES if channels % one == 0):
        vectors = max(1, lanes // registers.lanes)
        for width in range(1, WIDEST + 1):
            if width > 1 and (
                places is None or places % width or width * vectors + vectors + 1 > registers.count
            ):
                continue
            best = max(best, (width * vectors / (width + vectors), width, lanes))
    return best[1], best[2]


def _parallel(schedule: Any, registers: Registers) -> str | None:
    """Functions with several reductions: each block parallel over the axes before its first reduction."""
    _inline(schedule)
    for block in _blocks(schedule):
        kinds = _kinds(schedule, block)
        if _REDUCTION not in kinds:
            _elementwise(schedule, block)
            continue
        leading = schedule.get_loops(block)[: kinds.index(_REDUCTION)]
        if leading:
            _in_parallel(schedule, leading)
    return "parallel reductions"


def _elementwise(schedule: Any, block: Any) -> None:
    if any(kind not in (_SPATIAL, _REDUCTION) for kind in _kinds(schedule, block)):
        raise _DoesNotFitError
    loops = list(schedule.get_loops(block))
    if not loops:
        return
    last = _extent(schedule, loops[-1])
    lanes = next((one for one in ELEMENTWISE if last is not None and last % one == 0), 1)
    if lanes > 1:
        loops[-1], lane = schedule.split(loops[-1], [None, lanes])
        schedule.vectorize(lane)
    elif len(loops) > 1:
        loops = loops[:-1]
    _in_parallel(schedule, loops)


def _in_parallel(schedule: Any, loops: Sequence[Any]) -> Any:
    """Run the loops in parallel, as one where that can be; the innermost loop that is left.

    With two sizes that are only known when the model runs TVM 0.27 cannot take the fused index apart
    again: the first loop that goes round more than once is parallel then.
    """
    extents = [_extent(schedule, loop) for loop in loops]
    if extents.count(None) > 1:
        first = next(place for place, extent in enumerate(extents) if extent != 1)
        schedule.parallel(loops[first])
        return loops[-1]
    fused = schedule.fuse(*loops) if len(loops) > 1 else loops[0]
    schedule.parallel(fused)
    return fused


def _inline(schedule: Any) -> None:
    """Compute elementwise producers where they are used; padding before a reduction stays an array."""
    for block in _blocks(schedule):
        consumers = schedule.get_consumers(block)
        if _REDUCTION in _kinds(schedule, block) or not consumers:
            continue
        before = any(_REDUCTION in _kinds(schedule, one) for one in consumers)
        if before and "if_then_else" in str(schedule.get(block).body):
            continue
        _try(schedule.compute_inline, block)


def _try(primitive: Any, *arguments: Any) -> None:
    from tvm.s_tir.schedule.schedule import ScheduleError

    try:
        primitive(*arguments)
    except ScheduleError:  # the primitive left the schedule as it was
        return


def _blocks(schedule: Any) -> list[Any]:
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def _kinds(schedule: Any, block: Any) -> list[int]:
    return [int(axis.iter_type) for axis in schedule.get(block).iter_vars]


def _extent(schedule: Any, loop: Any) -> int | None:
    from tvm import tirx

    extent = schedule.get(loop).extent
    return int(extent.value) if isinstance(extent, tirx.IntImm) else None
