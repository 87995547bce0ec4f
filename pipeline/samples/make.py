"""Sample inputs: named arrays from a specification and a seed. No torch.

Every tensor has a random stream of its own, whose key is a digest of (seed, stream, name): it does
not depend on the other tensors, their order, the process or the number of threads.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Refused
from pipeline.samples.files import look, path_of
from pipeline.samples.notation import LARGEST_BYTES
from pipeline.samples.npz import read_npz, write_npz
from pipeline.samples.spec import InputSpecs, TensorSpec

Variant = Literal["plain", "negated", "scaled"]

#: Factor of the variant `scaled`: far enough that thresholds inside a network are crossed, near
#: enough that a half-precision network does not overflow.
SCALE: Final = 3.0
#: What `scaled` leaves of the span of a bounded input (uniform, file), from its lower end.
SHRINK: Final = 0.25
#: Pixels of an image file, at most: a decompression bomb ends here.
_LARGEST_IMAGE: Final = 100_000_000
_FILE: Final = "samples.npz"


class Samples(Mapping[str, NDArray[Any]]):
    """Tensor name to array, in the order of the call; can lie in the cache (one .npz)."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Samples({', '.join(f'{name}: {a.dtype}{list(a.shape)}' for name, a in self.items())})"

    def write(self, path: Path) -> None:
        """Write an .npz whose bytes depend on the arrays alone."""
        write_npz(path, self._arrays)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            OSError, ValueError, zipfile.BadZipFile: it is not there, or no such archive.
        """
        return cls(read_npz(path))

    def store(self, folder: Path) -> None:
        """See `pipeline.stage.Storable`."""
        self.write(folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `pipeline.stage.Storable`."""
        return cls.read(folder / _FILE)


def make_samples(
    specs: InputSpecs,
    *,
    seed: int,
    stream: str,
    variant: Variant = "plain",
    sizes: Mapping[str, int] | None = None,
) -> Samples:
    """Arrays for every tensor of `specs`.

    Args:
        specs: names, shapes, dtypes and fills.
        seed: the run's seed.
        stream: which set of samples ("export", "parity/0" ...): another stream, other numbers.
        variant: `negated` turns signs (a bounded fill is mirrored in its range), `scaled` multiplies
            by `SCALE` (a bounded fill shrinks towards its lower end); integers and constants stay.
        sizes: size of each dynamic axis that is not to have its example size, by the axis's name.

    Raises:
        Refused: a file has changed since the specification was read, or the sizes ask for too much.
    """
    sizes = sizes or {}
    return Samples({leaf.name: _array(leaf, seed, stream, variant, sizes) for leaf in specs.leaves})


def _array(
    leaf: TensorSpec, seed: int, stream: str, variant: Variant, sizes: Mapping[str, int]
) -> NDArray[Any]:
    shape = tuple(
        sizes.get(leaf.dynamic[index].name, size) if index in leaf.dynamic else size
        for index, size in enumerate(leaf.shape)
    )
    dtype = np.dtype(leaf.dtype)
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > LARGEST_BYTES:
        raise Refused("PL-201", f"input {leaf.name} is too large", found="x".join(map(str, shape)))
    fill = leaf.fill
    random = np.random.Generator(np.random.Philox(key=_key(seed, stream, leaf.key)))
    match fill.kind:
        case "constant":
            return np.full(shape, fill.value).astype(dtype)
        case "integers":
            whole = np.int64 if fill.low < 0 else np.uint64
            return random.integers(int(fill.low), int(fill.high), shape, dtype=whole).astype(dtype)
        case "normal":
            values = random.standard_normal(shape)
            factor = {"plain": 1.0, "negated": -1.0, "scaled": SCALE}[variant]
            return _rounded(values * factor, dtype)
        case "uniform":
            values = fill.low + (fill.high - fill.low) * random.random(shape)
            return _below(_rounded(_bounded(values, fill.low, fill.high, variant), dtype), fill.high)
        case "file":
            values = _fitted(_from_file(leaf), shape)
            if variant == "plain" or not np.issubdtype(dtype, np.floating) or values.size == 0:
                return np.asarray(values, order="C")
            low, high = float(values.min()), float(values.max())
            return _rounded(_bounded(values.astype(np.float64), low, high, variant), dtype)


def _key(seed: int, stream: str, name: str) -> int:
    """128 bits, the key of a Philox generator."""
    digest = hashlib.sha256(f"samples\0{seed}\0{stream}\0{name}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def _rounded(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    # numpy gives an array scalar for rank 0 after arithmetic.
    return np.asarray(values, dtype=dtype)


def _below(values: NDArray[Any], high: float) -> NDArray[Any]:
    """`high` is excluded, also after rounding to a shorter type."""
    largest = np.nextafter(np.asarray(high, values.dtype), np.asarray(-np.inf, values.dtype))
    below: NDArray[Any] = np.minimum(values, largest)
    return below


def _bounded(values: NDArray[np.float64], low: float, high: float, variant: Variant) -> NDArray[np.float64]:
    if variant == "negated":
        return low + (high - values)
    if variant == "scaled":
        return low + SHRINK * (values - low)
    return values


def _fitted(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The file's array in another size: cut, or repeated from its beginning, along each axis."""
    for axis, size in enumerate(shape):
        if values.shape[axis] != size:
            values = np.take(values, np.arange(size) % values.shape[axis], axis=axis)
    return values


def _from_file(leaf: TensorSpec) -> NDArray[Any]:
    where = f"model.inputs.{leaf.key}.fill.file"
    content = look(leaf.fill.path, leaf.key, where)
    path = path_of(leaf.fill.path)
    try:
        if content.kind == "image":
            return _image(path, leaf)
        if content.member is None:
            array = np.load(path, allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as archive:
                array = archive[content.member]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Refused("PL-205", f"the file is damaged: {error}", where=where, found=leaf.fill.path) from error
    if array.shape != leaf.shape or array.dtype.newbyteorder("=") != np.dtype(leaf.dtype):
        raise Refused(
            "PL-205", "the file has changed", where=where, found=f"{array.dtype}{list(array.shape)}",
            expected=f"{leaf.dtype}{list(leaf.shape)}",
        )  # fmt: skip
    return np.asarray(array, dtype=leaf.dtype)


def _image(path: Path, leaf: TensorSpec) -> NDArray[Any]:
    """Channels first, resized to the shape: 0 to 1 in a floating type, 0 to 255 in uint8."""
    from PIL import Image, UnidentifiedImageError

    channels, height, width = leaf.shape[-3:]
    where = f"model.inputs.{leaf.key}.fill.file"
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            if image.width * image.height > _LARGEST_IMAGE:
                raise Refused(
                    "PL-205", "the image is too large", where=where, found=f"{image.width}x{image.height}"
                )
            picture = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)
    except (OSError, ValueError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refused(
            "PL-205", f"the image is damaged: {error}", where=where, found=leaf.fill.path
        ) from error
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    values = planes if leaf.dtype == "uint8" else _rounded(planes / 255.0, np.dtype(leaf.dtype))
    return np.broadcast_to(values, leaf.shape).copy()
