"""Folding of what depends on constants alone, by numpy.

TVM's own FoldConstant compiles a function for every such call (about half a second each); what it
would evaluate in the networks that we know is a handful of operators on weights and scalars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Constants above this many elements are only moved about (transposed, reshaped), never computed with.
COMPUTED_UP_TO: Final = 65_536

#: Operators that move elements: `call` is the Relax call.
_MOVES: Final = frozenset({"relax.permute_dims", "relax.reshape", "relax.expand_dims", "relax.squeeze"})
#: Operators that compute: name to the function of numpy.
_COMPUTES: Final[Mapping[str, str]] = {
    "relax.add": "add", "relax.subtract": "subtract", "relax.multiply": "multiply", "relax.divide": "divide",
    "relax.maximum": "maximum", "relax.minimum": "minimum", "relax.less": "less", "relax.greater": "greater",
    "relax.isnan": "isnan", "relax.where": "where", "relax.sqrt": "sqrt", "relax.negative": "negative",
}  # fmt: skip


def fold_constants(module: Any) -> Any:
    """The module with `_MOVES` and `_COMPUTES` of constants replaced by their value."""
    from tvm import relax

    mutator = _mutator()(module)
    for variable, function in list(module.functions.items()):
        if isinstance(function, relax.Function):
            mutator.builder_.update_func(variable, mutator.visit_expr(function))
    return mutator.builder_.get()


def _evaluate(call: Any, arguments: list[NDArray[np.generic]]) -> NDArray[np.generic] | None:
    import numpy as np

    name = call.op.name
    if name in _MOVES:
        shape = [int(size) for size in call.ty.shape]
        if name == "relax.permute_dims":
            axes = call.attrs.axes
            order = None if axes is None else [int(axis) for axis in axes]
            return np.ascontiguousarray(arguments[0].transpose(order))
        return arguments[0].reshape(shape)
    if max(one.size for one in arguments) > COMPUTED_UP_TO:
        return None
    function: Callable[..., NDArray[np.generic]] = getattr(np, _COMPUTES[name])
    with np.errstate(all="ignore"):
        value = np.asarray(function(*arguments))
    # Integer division and the like differ between the two: only what keeps its element type is taken.
    return value if str(value.dtype) == str(call.ty.dtype) else None


def _mutator() -> Any:
    import tvm
    from tvm import relax
    from tvm.ir.expr import GenericConst
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Fold(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = super().visit_call_(call)
            if not isinstance(call.op, tvm.ir.Op) or call.op.name not in _MOVES | _COMPUTES.keys():
                return call
            given = call.args[:1] if call.op.name in _MOVES else call.args
            arguments = [self.value_of(one) for one in given]
            if not arguments or any(one is None for one in arguments):
                return call
            try:
                value = _evaluate(call, arguments)
            except (TypeError, ValueError):  # a symbolic shape
                return call
            return call if value is None else relax.const(value, str(value.dtype))

        def value_of(self, argument: Any) -> Any:
            if isinstance(argument, GenericConst):
                return argument.value.numpy() if hasattr(argument.value, "numpy") else None
            if isinstance(argument, relax.Var):
                bound = self.lookup_binding(argument)
                if isinstance(bound, GenericConst) and hasattr(bound.value, "numpy"):
                    return bound.value.numpy()
            return None

    return Fold
