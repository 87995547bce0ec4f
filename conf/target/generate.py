"""Makes the data of conf/target again: `python conf/target/generate.py` (needs onnx).

tables/onnx_operators.csv comes from the installed onnx package (and tables/vendor_operators.csv); operators/NAME.yaml from tables/NAME.csv,
the vendors' tables restated, and tables/clauses.yaml, which says what every clause of theirs means in the
language of limits. A clause without a meaning there ends this program: none is dropped.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
TABLES: Final = HERE / "tables"
#: Kind of an attribute in the language of limits, by onnx's type of it.
KINDS: Final = {"INT": "number", "FLOAT": "number", "STRING": "text", "INTS": "numbers", "FLOATS": "numbers"}


def onnx_operators() -> list[tuple[str, str]]:
    """Every operator of the standard domain that onnx ever had, with its attributes and their kinds."""
    import onnx.defs

    attributes: dict[str, dict[str, str]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            row = attributes.setdefault(schema.name, {})
            row.update({name: KINDS.get(one.type.name, "truth") for name, one in schema.attributes.items()})
    return [
        (name, " ".join(f"{key}:{kind}" for key, kind in sorted(row.items())))
        for name, row in sorted(attributes.items())
    ]


def write_onnx_operators() -> None:
    """tables/onnx_operators.csv: profiles are checked against it without importing onnx."""
    import onnx

    with (TABLES / "onnx_operators.csv").open("w", encoding="utf-8", newline="") as stream:
        stream.write(
            f"# Operators of the domain ai.onnx, all versions, with attributes and their kinds; onnx {onnx.__version__}\n"
        )
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("operator", "attributes"))
        rows.writerows(onnx_operators())


def rows(name: str) -> Iterator[dict[str, str]]:
    """The rows of a vendor's table."""
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(line for line in stream if not line.startswith("#"))


def citation(name: str) -> str:
    """What the head of a table says of its source."""
    lines = (TABLES / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    head = [line[1:].strip() for line in lines if line.startswith("#")]
    found = next(line for line in head if "Source: " in line)
    return found.partition("Source: ")[2].strip()


def split_clauses(text: str, contexts: dict[str, str]) -> list[tuple[str, str | None]]:
    """Clauses of a cell, each with the condition under which it counts.

    They stand between semicolons outside of parentheses. Alternatives that begin with a context ("conv2d
    (rank 4): ") are taken apart too.
    """
    found: list[tuple[str, str | None]] = []
    for alternative in _alternatives(text, contexts):
        prefix = next((one for one in contexts if alternative.startswith(one)), None)
        body = alternative.removeprefix(prefix or "")
        condition = contexts[prefix] if prefix else None
        found += [(clause, condition) for clause in _top_level(body)]
    return found


def _alternatives(text: str, contexts: dict[str, str]) -> list[str]:
    parts = text.split(" | ")
    if len(parts) > 1 and all(any(part.startswith(one) for one in contexts) for part in parts):
        return parts
    return [text]


def _top_level(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, mark in enumerate(text):
        depth += (mark in "([{") - (mark in ")]}")
        if mark == ";" and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


class Meanings:
    """What clauses mean, of one file of clauses."""

    def __init__(self, file: str, table: str) -> None:
        import yaml

        data = yaml.safe_load((TABLES / file).read_text(encoding="utf-8"))
        self.contexts: dict[str, str] = data["contexts"]
        self.clauses: dict[str, object] = data["clauses"]
        self.table = table
        self.mends: dict[str, str] = data.get("mends", {})
        self.cells: dict[tuple[str, str], str] = {}

    def mend(self, operator: str, clause: str) -> str | None:
        """What makes a node keep to the clause."""
        keys = (f"{self.table}/{operator} :: {clause}", f"{operator} :: {clause}")
        return next((self.mends[key] for key in keys if key in self.mends), None)

    def meaning(self, operator: str, clause: str) -> object:
        """Its limits, or a mapping that says why it has none; the clause itself where it is a limit already."""
        for key in (f"{self.table}/{operator} :: {clause}", f"{operator} :: {clause}", clause):
            if key in self.clauses:
                return self.clauses[key]
        return clause

    def limits(
        self, operator: str, side: str, text: str, general: tuple[str, ...] = ()
    ) -> tuple[list[object], set[str]]:
        """The limits of a cell, and the element types of quantized activations that it states.

        Raises:
            SystemExit: a clause means nothing here.
        """
        from pipeline.targets.limit_parser import parse_limit
        from pipeline.targets.onnx_operators import names_of
        from pipeline.targets.predicates import LimitError

        made: list[object] = []
        quantized: set[str] = set()
        clauses = split_clauses(text, self.contexts)
        conditions = list(dict.fromkeys(condition for _, condition in clauses if condition))
        if conditions:
            made.append({"limit": " or ".join(conditions), "says": "one of the alternatives of the row"})
        for clause, condition in clauses:
            meaning = self.meaning(operator, clause)
            if isinstance(meaning, dict):
                if set(meaning) <= {"same_as", "without"} and "same_as" in meaning:
                    made += self._of(meaning["same_as"], side, meaning.get("without", ()), operator)
                    continue
                quantized.update(meaning.get("quantized", ()))
                if not set(meaning) <= {"quantized", "data", "part_of", "limit"}:
                    raise SystemExit(f"{self.table}, {operator}: {clause!r} has no meaning in {meaning}")
                if "limit" not in meaning:
                    continue
                meaning = meaning["limit"]
            mend = self.mend(operator, clause)
            for limit in meaning if isinstance(meaning, list) else [meaning]:
                whole = f"if {condition}: {limit}" if condition else str(limit)
                try:
                    parse_limit(whole, names_of(operator))
                except LimitError as error:
                    raise SystemExit(f"{self.table}, {operator}, {side}: {clause!r}: {error}") from error
                row = (
                    {"limit": whole}
                    | ({"says": clause} if whole != clause else {})
                    | ({"mend": mend} if mend else {})
                )
                made.append(row if len(row) > 1 else whole)
        made += [{"limit": one, "says": f"{one} unless the row says otherwise"} for one in general]
        return made, quantized

    def _of(self, operator: str, side: str, without: object, here: str) -> list[object]:
        text = self.cells[operator, side]
        left = [clause for clause, _ in split_clauses(text, self.contexts) if clause not in (without or ())]
        return self.limits(operator, side, "; ".join(left))[0]


#: Words in a cell that state a rank; a row without them keeps to the general rule of its table.
RANK_WORDS: Final = (
    "rank",
    "as Reshape",
    "conv2d",
    "converted to Conv",
    "batch==1",
    "fmap N",
    "shape rules of Mul",
    "as Add",
    "limits of",
)
#: Rows that the general rule of rank 4 is not about: they vanish before placement.
VANISH: Final = ("Constant", "ConstantOfShape", "Dropout", "Shape", "Size", "Identity")


def vendor_table(name: str, clauses: str, *, rank_4: bool = False) -> dict[str, dict[str, object]]:
    """operators: of a table with the columns operator, cpu, bpu, bpu_constraints, cpu_constraints, notes."""
    meanings = Meanings(clauses, name)
    table = list(rows(name))
    for row in table:
        meanings.cells[row["operator"], "bpu"] = row["bpu_constraints"]
        meanings.cells[row["operator"], "cpu"] = row["cpu_constraints"]
    made: dict[str, dict[str, object]] = {}
    for row in table:
        operator, notes = row["operator"], row["notes"]
        cells = {"bpu": row["bpu_constraints"], "cpu": row["cpu_constraints"]}
        for side in ("bpu", "cpu"):
            if row[side] == "none" and cells[side]:
                notes, cells[side] = f"{cells[side]}; {notes}".strip("; "), ""
        states = any(word in cells["bpu"] for word in RANK_WORDS) or operator in VANISH
        general = ("rank == 4",) if rank_4 and row["bpu"] != "none" and not states else ()
        entry = _entry(meanings, operator, row, cells, general)
        if notes:
            entry["notes"] = notes
        made[operator] = entry
    return made


def _entry(
    meanings: Meanings, operator: str, row: dict[str, str], cells: dict[str, str], general: tuple[str, ...]
) -> dict[str, object]:
    entry: dict[str, object] = {}
    for side, key, added in (("bpu", "accelerator", general), ("cpu", "cpu", ())):
        found, quantized = meanings.limits(operator, side, cells[side], added)
        support = row[side]
        if support == "full" and found:
            support = "limited"
        if support == "limited" and not found:
            support = "full"
        if support != "none":
            entry[key] = support
        if found:
            entry[f"{key}_limits"] = found
        if quantized:
            entry["quantized"] = sorted(quantized)
    return entry


def kneron_table(chip: str) -> dict[str, dict[str, object]]:
    """operators: of one Kneron chip."""
    meanings = Meanings("clauses_other.yaml", "kneron")
    made: dict[str, dict[str, object]] = {}
    for row in rows("kneron"):
        entry: dict[str, object] = {}
        support = row[chip]
        text = ""
        for part in row["constraints"].split(" || "):
            chips, _, rule = part.partition(": ")
            if chip.removeprefix("kl") in chips.split("/"):
                text = rule
        found, _ = meanings.limits(row["operator"], "bpu", text) if support != "none" else ([], set())
        if support != "none":
            entry["accelerator"] = "limited" if found else "full"
        if found:
            entry["accelerator_limits"] = found
        made[row["operator"]] = entry
    return made


#: TensorRT's names of element types.
TENSORRT_TYPES: Final = {
    "FP32": "float32",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP8": "float8e4m3fn",
    "FP4": "float4e2m1",
}


def tensorrt_table() -> dict[str, dict[str, object]]:
    """operators: of TensorRT."""
    meanings = Meanings("clauses_other.yaml", "tensorrt")
    made: dict[str, dict[str, object]] = {}
    for row in rows("tensorrt"):
        operator = row["operator"]
        if row["supported"] == "N":
            made[operator] = {"notes": row["restrictions"]} if row["restrictions"] else {}
            continue
        types = [TENSORRT_TYPES.get(one, one.lower()) for one in row["types"].split()]
        found, _ = meanings.limits(operator, "bpu", row["restrictions"])
        subject = "dtype_out" if operator == "ConstantOfShape" else "dtype"
        limit = {"limit": f"{subject} in {{{', '.join(types)}}}", "says": row["types"]}
        made[operator] = {"accelerator": "limited", "accelerator_limits": [limit, *found]}
    return made


def listed_table(name: str) -> dict[str, dict[str, object]]:
    """operators: of a table with the columns operator, support, limits (between semicolons) and notes."""
    made: dict[str, dict[str, object]] = {}
    for row in rows(name):
        entry: dict[str, object] = {"accelerator": row["support"]} if row["support"] != "none" else {}
        found = [one.strip() for one in row["limits"].split(";") if one.strip()]
        if found:
            entry["accelerator_limits"] = found
        if row["notes"]:
            entry["notes"] = row["notes"]
        made[row["operator"]] = entry
    return made


def onnxruntime_rows() -> list[tuple[str, str, str, str]]:
    """What the CPU kernels of the installed onnxruntime take, and what it makes of operators without one."""
    import onnx.defs
    import onnxruntime.capi.onnxruntime_pybind11_state as state

    known = {name for name, _ in onnx_operators()}
    types: dict[str, set[str]] = {}
    ranges: dict[str, list[tuple[int, int]]] = {}
    for kernel in state.get_all_opkernel_def():
        if kernel.provider != "CPUExecutionProvider" or kernel.domain not in (
            "",
            "com.microsoft",
            "ai.onnx.ml",
        ):
            continue
        name = f"{kernel.domain}::{kernel.op_name}" if kernel.domain else kernel.op_name
        if not kernel.domain and kernel.op_name not in known:
            continue  # the runtime's own, from before ONNX had versions
        ranges.setdefault(name, []).append(tuple(kernel.version_range))
        wanted = _first_type(kernel.op_name, kernel.domain)
        types.setdefault(name, set()).update(kernel.type_constraints.get(wanted, ["any"]))
    found = {name: _dtypes(given) for name, given in types.items()}
    for schema in onnx.defs.get_all_schemas():
        if (
            schema.domain == ""
            and schema.name not in found
            and (schema.has_function or schema.has_context_dependent_function)
        ):
            found[schema.name] = None
    made = []
    for name, dtypes in sorted(found.items()):
        limits = "" if dtypes is None else f"dtype in {{{', '.join(sorted(dtypes))}}}"
        if without := _without_kernel(name, ranges.get(name, [])):
            limits = f"{limits}; opset < {without}".lstrip("; ")
        if name in ("GRU", "LSTM", "RNN"):
            limits += "; layout == 0"
        note = "run as the ONNX function of it" if name not in types else ""
        made.append((name, "limited" if limits else "full", limits, note))
    return made


#: The runtime's word for a kernel whose end is open; it serves the one version that it begins with.
OPEN_END: Final = 2**31 - 1


def _serves(version: int, low: int, high: int) -> bool:
    """Whether a kernel for versions low to high serves a version of an operator, as the runtime decides it."""
    return version == low or (high != OPEN_END and low <= version <= high)


def _without_kernel(operator: str, ranges: list[tuple[int, int]]) -> int | None:
    """The opset from which on no kernel serves the operator, though it has a newer version; None: none."""
    import onnx.defs

    versions = {
        schema.since_version: schema.has_function or schema.has_context_dependent_function
        for schema in onnx.defs.get_all_schemas_with_history()
        if (schema.name, schema.domain) == (operator, "")
    }
    missing: int | None = None
    for version in sorted(versions, reverse=True):
        if versions[version] or any(_serves(version, *one) for one in ranges) or not ranges:
            break
        missing = version
    return missing


def _first_type(operator: str, domain: str) -> str:
    """Name of the type constraint of an operator's first input (its first output where it has none)."""
    import onnx.defs

    try:
        schema = onnx.defs.get_schema(operator, domain)
    except Exception:  # noqa: BLE001 - onnx raises a type of its C++ part
        return "T"
    tensors = list(schema.inputs) or list(schema.outputs)
    return str(tensors[0].type_str) if tensors else "T"


def _dtypes(given: set[str]) -> set[str] | None:
    """Names that numpy has; None where everything goes. float16 runs as float32 between casts of the runtime's."""
    names = {"float": "float32", "double": "float64"}
    found = set()
    for one in given:
        if not one.startswith("tensor("):
            return None
        word = one.removeprefix("tensor(").removesuffix(")")
        found.add(names.get(word, word))
    if "float32" in found:
        found.add("float16")
    return found


def write_listed(name: str, head: str, table: list[tuple[str, str, str, str]]) -> None:
    """A table that was taken from an installed tool."""
    with (TABLES / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
        stream.write(f"# {head}\n")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("operator", "support", "limits", "notes"))
        writer.writerows(table)


def write_operators(name: str, table: dict[str, dict[str, object]], source: str) -> None:
    """operators/NAME.yaml."""
    import yaml

    text = f"# Made by conf/target/generate.py from tables/{source}.csv; change the table or the clauses, not this file.\n"
    text += yaml.safe_dump(
        {"citation": citation(source), "operators": table}, sort_keys=True, width=110, allow_unicode=True
    )
    (HERE / "operators" / f"{name}.yaml").write_text(text, encoding="utf-8")


def from_tools() -> None:
    """Tables that are taken from installed tools: needs onnxruntime and apache-tvm."""
    import onnx
    import onnxruntime
    import tvm
    from tvm.relax.frontend.onnx import onnx_frontend

    write_listed(
        "onnxruntime",
        f"Kernels of the CPU provider of onnxruntime {onnxruntime.__version__}, all versions, with the element types of the first input. "
        f"Source: its own list (get_all_opkernel_def), and the functions of onnx {onnx.__version__} for operators without a kernel",
        onnxruntime_rows(),
    )
    known = {name for name, _ in onnx_operators()}
    taken = [(name, "full", "", "") for name in sorted(onnx_frontend._get_convert_map()) if name in known]
    missing = [
        (name, "none", "", "no converter in the frontend")
        for name in sorted(known - {row[0] for row in taken})
    ]
    write_listed(
        "tvm",
        f"Operators that the ONNX frontend of apache-tvm {tvm.__version__} converts. Source: its own map (relax.frontend.onnx)",
        sorted([*taken, *missing]),
    )


def newer_toolkit(table: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """What an older version's list does not have is not known of a newer one (2.5.0 takes Det and GridSample)."""
    return {
        operator: row
        if "accelerator" in row
        else {"accelerator": "unknown", "notes": "not in the list of toolkit 2.1.0"}
        for operator, row in table.items()
    }


HORIZON: Final = ("horizon_x3", "horizon_x5", "horizon_rdk_ultra")
KNERON: Final = ("kl520", "kl530", "kl630", "kl720", "kl730")


def all_tables() -> dict[str, tuple[dict[str, dict[str, object]], str]]:
    """Name of the file in operators/ to what is in it, and the table it comes from."""
    made: dict[str, tuple[dict[str, dict[str, object]], str]] = {}
    for name in HORIZON:
        made[name] = (vendor_table(name, "clauses_horizon.yaml", rank_4=name != "horizon_x3"), name)
    for name in ("ti_tidl", "axera_ax650", "deepx", "rockchip_rknn2"):
        made[name] = (vendor_table(name, "clauses_other.yaml"), name)
    made["rknn"] = (newer_toolkit(made["rockchip_rknn2"][0]), "rockchip_rknn2")
    for chip in KNERON:
        made[f"kneron_{chip}"] = (kneron_table(chip), "kneron")
    made["tensorrt"] = (tensorrt_table(), "tensorrt")
    for name in ("onnxruntime", "openvino", "tvm", "mnn", "ncnn"):
        made[name] = (listed_table(name), name)
    return made


def main() -> None:
    """Make operators/ again; with --tools, first the tables that come from installed packages."""
    if "--tools" in sys.argv[1:]:
        write_onnx_operators()
        from_tools()
    for name, (table, source) in all_tables().items():
        write_operators(name, table, source)


if __name__ == "__main__":
    main()
