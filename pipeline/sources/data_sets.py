"""Importing torchvision without its data sets, which no network needs (62 modules, 0.02 s).

torchvision/__init__.py imports `torchvision.datasets`. While it is imported, a stand-in is in its place.
Afterwards `import torchvision.datasets` brings the real package, and so does the attribute
`torchvision.datasets` as soon as anything of it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pipeline.sources.stand_in import StandIn

_DATA_SETS: Final = "torchvision.datasets"


@contextmanager
def without_data_sets() -> Iterator[None]:
    """While this is active, importing torchvision does not import them."""
    if "torchvision" in sys.modules:
        yield
        return
    stand_in = StandIn(_DATA_SETS)
    sys.modules[_DATA_SETS] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(_DATA_SETS) is stand_in:
            del sys.modules[_DATA_SETS]
