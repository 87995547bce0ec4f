"""The schema of a profile: every key with what it may be, and the typed profile that comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pipeline.errors import Refused
from pipeline.graph.rewrites.names import LEGALISATION
from pipeline.targets.limit_parser import parse_limit
from pipeline.targets.onnx_operators import names_of, operator_names
from pipeline.targets.predicates import LimitError, Predicate
from pipeline.targets.profile import SUPPORT, UNLISTED, OperatorRule, Profile, Requirement
from pipeline.targets.vocabulary import DTYPES

#: Keys of a profile file.
KEYS: Final = (
    "title", "citation", "extends", "operators_from", "opset", "ir_version", "domains", "dtypes", "shapes",
    "batch", "inputs", "outputs", "max_rank", "requires", "unlisted", "places", "folds_constants",
    "general_limits", "operators", "wants", "options", "precisions", "backend", "verified", "remarks",
)  # fmt: skip
#: Keys of an operator's row.
ROW_KEYS: Final = (
    "accelerator", "cpu", "accelerator_limits", "cpu_limits", "general", "quantized", "notes", "mend",
)  # fmt: skip
PRECISIONS: Final = ("float32", "float16")
#: A comparison that lets a tenth of the largest value go wrong proves nothing.
LARGEST_TOLERANCE: Final = 0.1


def build(
    name: str, data: Mapping[str, Any], *, where: str, extends: tuple[str, ...], digest: str
) -> Profile:
    """The profile that resolved YAML data stands for.

    Args:
        name: as it was asked for.
        data: everything laid over everything.
        where: the file, for messages.
        extends: see `Profile`.
        digest: see `Profile`.

    Raises:
        Refused: a key, value, operator or limit that there is not.
    """
    row = _Row(data, where, KEYS)
    opset, inputs, outputs = (
        _Row(row.mapping(key), f"{where}: {key}", keys)
        for key, keys in (("opset", ("min", "max")), ("inputs", ("rank", "max")), ("outputs", ("max",)))
    )
    general = row.strings("general_limits", texts=False)
    return Profile(
        name=name,
        title=row.text("title"),
        citation=row.text("citation"),
        extends=extends,
        opset=_opset(opset),
        ir_version=row.number("ir_version"),
        domains=tuple("" if one == "ai.onnx" else one for one in row.strings("domains", ("ai.onnx",))),
        dtypes=row.words("dtypes", tuple(DTYPES), "element types by numpy's names"),
        shapes=row.choice("shapes", ("static", "dynamic"), "dynamic"),
        batch=row.number("batch"),
        input_rank=inputs.number("rank"),
        max_rank=row.number("max_rank"),
        max_inputs=inputs.number("max"),
        max_outputs=outputs.number("max"),
        requires=tuple(_requirement(one, f"{where}: requires") for one in row.listed("requires")),
        unlisted=row.choice("unlisted", UNLISTED, "unknown"),
        places={str(key): str(value) for key, value in row.mapping("places").items()},
        folds_constants=row.truth("folds_constants", True),
        general_limits=limits(general, None, f"{where}: general_limits"),
        operators=_operators(row.mapping("operators"), where),
        wants=row.words("wants", _rules(), "names of legalisation rules (python -m pipeline rules legalise)"),
        options=dict(row.mapping("options")),
        precisions=_precisions(row.mapping("precisions"), where),
        backend=row.text("backend", None),
        verified=row.truth("verified", False),
        remarks=row.strings("remarks"),
        digest=digest,
    )


def limits(given: Any, operator: str | None, where: str) -> tuple[Predicate, ...]:
    """Limits as they stand in YAML: texts, or mappings with limit, says and mend.

    Raises:
        Refused: one cannot be read; the message has its place in the text and what was expected.
    """
    names = names_of(operator)
    found = []
    for index, one in enumerate(given):
        place = f"{where}[{index}]"
        row = _Row(one, place, ("limit", "says", "mend")) if isinstance(one, Mapping) else None
        text = row.text("limit") if row else one
        if not isinstance(text, str):
            raise Refused("PL-603", "a limit is no text", where=place, found=repr(text),
                          expected="a text such as 'rank == 4'", next_step="Put it into quotes")  # fmt: skip
        try:
            found.append(
                parse_limit(
                    text, names, says=row.text("says", None) if row else None,
                    mend=row.text("mend", None) if row else None,
                )
            )  # fmt: skip
        except LimitError as error:
            raise Refused(
                "PL-603", f"the limit {text!r} cannot be read", where=place,
                found=f"{error.found} at character {error.position + 1}", expected=error.expected,
                next_step="docs/profiles.md has the language of limits",
            ) from error  # fmt: skip
    return tuple(found)


def _operators(given: Mapping[str, Any], where: str) -> dict[str, OperatorRule]:
    known = operator_names()
    made = {}
    for operator, row in given.items():
        place = f"{where}: operators.{operator}"
        if operator not in known and "::" not in str(operator):
            close = get_close_matches(str(operator), known, n=3, cutoff=0.6)
            hint = f"Did you mean {' or '.join(close)}? " if close else ""
            raise Refused(
                "PL-602", f"the profile names an operator that there is not: {operator}", where=place,
                expected="an operator of ONNX (Conv), or one with its domain (com.microsoft::Gelu)",
                next_step=f"{hint}Change it in {where}",
            )  # fmt: skip
        if row is not None:
            made[str(operator)] = _operator(str(operator), row, place)
    return made


def _operator(operator: str, given: Any, where: str) -> OperatorRule:
    row = _Row(given, where, ROW_KEYS)
    texts = {key: row.strings(key, texts=False) for key in ("accelerator_limits", "cpu_limits")}
    support = {
        key: row.choice(key, SUPPORT, "limited" if texts[f"{key}_limits"] else "none")
        for key in ("accelerator", "cpu")
    }
    for key, value in support.items():
        if texts[f"{key}_limits"] and value in ("none", "full"):
            raise Refused(
                "PL-601", f"limits where {key} is {value}", where=where, expected=f"{key}: limited",
                next_step=f"Write {key}: limited, or take {key}_limits away",
            )  # fmt: skip
    return OperatorRule(
        operator=operator,
        accelerator=support["accelerator"],
        cpu=support["cpu"],
        accelerator_limits=limits(texts["accelerator_limits"], operator, f"{where}.accelerator_limits"),
        cpu_limits=limits(texts["cpu_limits"], operator, f"{where}.cpu_limits"),
        general=row.truth("general", True),
        quantized=row.strings("quantized"),
        notes=row.text("notes", None),
        mend=row.text("mend", None),
    )


def _requirement(given: Any, where: str) -> Requirement:
    row = _Row(given, where, ("operator", "at_least", "place", "says"))
    return Requirement(
        operator=row.choice("operator", tuple(sorted(operator_names())), None),
        at_least=row.number("at_least") or 1,
        place=row.choice("place", ("accelerator", "cpu", "any"), "accelerator"),
        says=row.text("says", None),
    )


def _rules() -> tuple[str, ...]:
    return tuple(name for family in LEGALISATION.values() for name in family)


def _opset(row: _Row) -> tuple[int | None, int | None]:
    low, high = row.number("min"), row.number("max")
    if low is not None and high is not None and low > high:
        raise row.refuse("", "min at most max", {"min": low, "max": high})
    return low, high


def _precisions(given: Mapping[str, Any], where: str) -> dict[str, float]:
    made = {}
    for precision, tolerance in (given or {"float32": 1e-4}).items():
        if (
            precision not in PRECISIONS
            or isinstance(tolerance, bool)
            or not isinstance(tolerance, (int, float))
        ):
            raise Refused("PL-601", "no precision with its tolerance", where=f"{where}: precisions",
                          found=f"{precision}: {tolerance}", expected="float32: 1.0e-4",
                          next_step=f"Mend {where}: precisions")  # fmt: skip
        if not 0 < tolerance <= LARGEST_TOLERANCE:
            place = f"{where}: precisions.{precision}"
            raise Refused("PL-601", "a tolerance must be above 0 and prove something", where=place,
                          found=str(tolerance), expected=f"above 0, at most {LARGEST_TOLERANCE}",
                          next_step=f"Change {place}")  # fmt: skip
        made[str(precision)] = float(tolerance)
    return made


class _Row:
    """A mapping of YAML whose keys are checked, and whose values are taken with their type."""

    def __init__(self, data: Any, where: str, keys: tuple[str, ...]) -> None:
        self.where = where
        if not isinstance(data, Mapping):
            raise self.refuse("", "a mapping", data)
        self.data = data
        for key in data:
            if key not in keys:
                close = get_close_matches(str(key), keys, n=2, cutoff=0.5)
                raise Refused(
                    "PL-601", f"a profile has no key {key}", where=where, expected=f"one of {', '.join(keys)}",
                    next_step=f"Did you mean {' or '.join(close)}?" if close else f"Take {key} away",
                )  # fmt: skip

    def refuse(self, key: str, expected: str, found: Any) -> Refused:
        place = f"{self.where}: {key}" if key else self.where
        return Refused("PL-601", "a value that the profile's key does not take", where=place,
                       found=repr(found)[:80], expected=expected, next_step=f"Mend {place}")  # fmt: skip

    def _take(self, key: str, fits: Callable[[Any], bool], expected: str, default: Any) -> Any:
        value = self.data.get(key)
        if value is None:
            if default is _NEEDED:
                raise self.refuse(key, expected, "nothing")
            return default
        if not fits(value):
            raise self.refuse(key, expected, value)
        return value

    def text(self, key: str, default: Any = ...) -> Any:
        default = _NEEDED if default is ... else default
        return self._take(key, lambda value: isinstance(value, str), "a text", default)

    def number(self, key: str) -> Any:
        return self._take(key, lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
                          "a whole number from 0", None)  # fmt: skip

    def truth(self, key: str, default: bool) -> bool:
        return bool(self._take(key, lambda value: isinstance(value, bool), "true or false", default))

    def choice(self, key: str, words: tuple[str, ...], default: str | None) -> Any:
        expected = f"one of {', '.join(words)}" if len(words) < 20 else "an operator of ONNX"
        return self._take(
            key, lambda value: value in words, expected, _NEEDED if default is None else default
        )

    def mapping(self, key: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._take(key, lambda value: isinstance(value, Mapping), "a mapping", {})
        return found

    def listed(self, key: str) -> list[Any]:
        found: list[Any] = self._take(key, lambda value: isinstance(value, list), "a list", [])
        return found

    def strings(self, key: str, default: tuple[str, ...] = (), *, texts: bool = True) -> Any:
        found = self._take(
            key, lambda value: isinstance(value, list) and (not texts or all(isinstance(one, str) for one in value)),
            "a list of texts" if texts else "a list of limits", default,
        )  # fmt: skip
        return tuple(found)

    def words(self, key: str, known: tuple[str, ...], expected: str) -> tuple[str, ...]:
        found: tuple[str, ...] = self.strings(key)
        for one in found:
            if one not in known:
                raise self.refuse(key, expected, one)
        return found


_NEEDED: Final = object()
