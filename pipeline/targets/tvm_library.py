"""Element types of the program inside a library of TVM's: what its virtual machine prints of itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipeline.targets.backend import BackendError


def library_types(path: Path) -> dict[str, int]:
    """Floating element type to how many tensors of it the library's program allocates, most frequent first."""
    import tvm

    try:
        module = tvm.runtime.load_module(str(path))
        pool, program_text = str(module["stats"]()), str(module["as_text"]())
    except Exception as error:
        raise BackendError(f"TVM cannot load {path.name}: {last_line(error)}") from error
    constants = constant_pool(pool)
    found: Counter[str] = Counter()
    for place in re.findall(r"alloc_tensor in: .*, c\[(\d+)\]\s+dst", program_text):
        kind = constants[int(place)] if int(place) < len(constants) else ""
        if kind.startswith(("float", "bfloat")):
            found[kind] += 1
    return dict(found.most_common())


def constant_pool(text: str) -> list[str]:
    """The entries of the pool that the virtual machine's statistics print, in order."""
    _, _, rest = text.partition("Constant pool (#")
    _, _, rest = rest.partition(": [")
    entries, depth, quoted, start = [], 0, False, 0
    for place, letter in enumerate(rest):
        if letter == '"' and (not quoted or rest[place + 1 : place + 2] in (",", "]")):
            quoted = not quoted
        elif quoted:
            continue
        elif letter == "[":
            depth += 1
        elif letter == "]" and depth:
            depth -= 1
        elif letter in ",]" and not depth:
            entries.append(rest[start:place].strip())
            start = place + 1
            if letter == "]":
                break
    return entries


def precision_of(types: Mapping[str, int]) -> str:
    """What most tensors are; the minority is named too, where operators were kept in float32."""
    names = list(types)
    if not names:
        return "float32"
    return names[0] if len(names) == 1 else f"{names[0]} with {', '.join(names[1:])} in places"


def proof_of(types: Mapping[str, int]) -> str:
    """How the precision was seen."""
    counts = ", ".join(f"{number} {name}" for name, number in types.items()) or "no floating"
    return f"tensors that the program inside the library allocates: {counts}"


def last_line(error: BaseException) -> str:
    """The last line of what TVM says: a traceback of its own stands before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
