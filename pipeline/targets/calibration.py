"""Data for a vendor's quantization: the user's images or arrays, brought to the shape of each input.

`find_samples` looks at names and counts alone and runs before any work; arrays are read one at a time
when they are written, so that three hundred images take the memory of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pipeline.errors import Refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The vendors' documents ask for about a hundred; fewer than this say little, more than that take long.
FEWEST: Final = 20
MOST: Final = 300
IMAGES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ARRAYS: Final = (".npy",)
BUNDLES: Final = (".npz",)

Colours = Literal["rgb", "bgr", "yuv444", "gray"]
Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True)
class CalibratedInput:
    """What the samples of one input must be.

    Attributes:
        shape: as the file has it, example sizes.
        dtype: numpy's name of what is written: float32 or uint8.
        colours: order in which an image's channels are taken; None: only arrays can be given.
        layout: where the channels of an image go.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    colours: Colours | None = None
    layout: Layout = "NCHW"


@dataclass(frozen=True)
class Samples:
    """Files of a folder, in the order in which they are used.

    Attributes:
        files: input to its files; the same number each.
        members: the files are .npz with an array an input.
        left_out: how many files beyond `MOST` are not used.
    """

    files: Mapping[str, tuple[Path, ...]]
    members: bool = False
    left_out: int = 0

    @property
    def count(self) -> int:
        return min((len(files) for files in self.files.values()), default=0)


def find_samples(folder: Path, inputs: Sequence[CalibratedInput]) -> Samples:
    """The samples in `folder`: its files where there is one input, a folder an input, or .npz with all inputs.

    Raises:
        Refused: PL-620, there are none, files of other kinds, inputs without a folder or with another
            number of files; images for an input that only takes arrays.
    """
    if not folder.is_dir():
        raise _refused("there is no such folder", str(folder))
    bundles = _files(folder, BUNDLES)
    if bundles:
        return _evenly({one.name: bundles for one in inputs}, members=True)
    own = _files(folder, IMAGES + ARRAYS)
    found: dict[str, tuple[Path, ...]] = {}
    for one in inputs:
        below = _files(folder / folder_name(one.name), IMAGES + ARRAYS)
        if not below and len(inputs) == 1:
            below = own
        if not below:
            raise _refused(
                f"there are no images or arrays for input {one.name}", _listed(folder),
                "images (.jpg, .png, .bmp ...) or arrays (.npy) in " + (
                    "it" if len(inputs) == 1 else f"a folder {folder_name(one.name)} in it"
                ),
            )  # fmt: skip
        if one.colours is None and (
            image := next((file for file in below if file.suffix.lower() in IMAGES), None)
        ):
            raise Refused(
                "PL-620", f"input {one.name} takes arrays, not images", where="target.calibration.dir",
                found=image.name,
                next_step="Type target.options.input_type_train=rgb (or bgr, gray) if it is an image, with "
                "target.options.mean and std as in training, or give .npy files",
            )  # fmt: skip
        found[one.name] = below
    counts = {name: len(files) for name, files in found.items()}
    if len(set(counts.values())) > 1:
        raise _refused(
            "the inputs have different numbers of samples",
            ", ".join(f"{name}: {count}" for name, count in counts.items()), "the same number for each input",
        )  # fmt: skip
    return _evenly(found)


def _refused(message: str, found: str, expected: str | None = None) -> Refused:
    return Refused(
        "PL-620", f"the calibration data cannot be used: {message}", where="target.calibration.dir", found=found,
        expected=expected, next_step="Type target.calibration.dir=FOLDER, or null for placeholders",
    )  # fmt: skip


def _files(folder: Path, suffixes: Sequence[str]) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(
        sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in suffixes)
    )


def _listed(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "") if names else "an empty folder"


def _evenly(files: Mapping[str, tuple[Path, ...]], *, members: bool = False) -> Samples:
    """At most `MOST` of them, spread over all: neighbours in a folder are often alike."""
    count = min(len(each) for each in files.values())
    used = min(count, MOST)
    chosen = [index * count // used for index in range(used)]
    return Samples(
        {name: tuple(each[index] for index in chosen) for name, each in files.items()}, members, count - used
    )


def folder_name(name: str) -> str:
    """An input's name as the name of a folder."""
    text = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in name)
    return text.strip(".") or "input"


def read_sample(samples: Samples, one: CalibratedInput, index: int) -> NDArray[np.generic]:
    """The array of sample `index` for an input, of its shape and element type.

    Raises:
        Refused: PL-621, the file cannot be read, has another shape, or holds what the element type cannot.
    """
    path = samples.files[one.name][index]
    if path.suffix.lower() in IMAGES:
        return _image(path, one)
    return _array(path, one, samples.members)


def _image(path: Path, one: CalibratedInput) -> NDArray[np.generic]:
    import numpy as np
    from PIL import Image

    if len(one.shape) != 4 or one.shape[0] != 1:
        raise _bad(
            path, f"input {one.name} has the shape {list(one.shape)}", "1 x C x H x W to hold one image"
        )
    first, second, third = one.shape[1:]
    channels, height, width = (first, second, third) if one.layout == "NCHW" else (third, first, second)
    if channels != (1 if one.colours == "gray" else 3):
        raise _bad(
            path, f"input {one.name} has {channels} channels in {one.layout}", f"those of {one.colours}"
        )
    mode = {"gray": "L", "yuv444": "YCbCr"}.get(str(one.colours), "RGB")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(
                image.convert("RGB").convert(mode).resize((width, height), Image.Resampling.BILINEAR)
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _bad(path, " ".join(str(error).split()), "an image that pillow reads") from error
    pixels = pixels.reshape(height, width, channels)
    if one.colours == "bgr":
        pixels = pixels[:, :, ::-1]
    if one.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[None].astype(one.dtype))


def _array(path: Path, one: CalibratedInput, members: bool) -> NDArray[np.generic]:
    import numpy as np

    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if members:
            with loaded as archive:
                if one.name not in archive.files:
                    raise _bad(path, ", ".join(archive.files), f"an array {one.name}")
                loaded = archive[one.name]
    except (OSError, ValueError, EOFError) as error:
        raise _bad(path, " ".join(str(error).split()), "an array that numpy.save wrote") from error
    array = np.asarray(loaded)
    if array.shape == one.shape[1:] and one.shape[:1] == (1,):
        array = array[None]
    if array.shape != one.shape or array.dtype.kind not in "fiub":
        raise _bad(path, f"{array.dtype.name} {list(array.shape)}", f"{one.dtype} {list(one.shape)}")
    _finite(path, array, one)
    if one.dtype == "uint8" and (array.min() < 0 or array.max() > 255):
        raise _bad(path, f"values from {array.min()} to {array.max()}", "0 to 255")
    return np.ascontiguousarray(array.astype(one.dtype))


def _finite(path: Path, array: NDArray[np.generic], one: CalibratedInput) -> None:
    """One NaN or infinity makes the range of a whole tensor meaningless."""
    import numpy as np

    if array.dtype.kind != "f":
        return
    for word, places in (("NaN", np.isnan(array)), ("infinity", np.isinf(array))):
        if places.any():
            first = [int(index) for index in np.argwhere(places)[0]]
            found = f"{word} in {np.count_nonzero(places)} of {array.size} elements, first at {first}"
            raise _bad(path, found, "finite numbers")
    largest, limit = float(np.abs(array).max(initial=0)), float(np.finfo(np.float32).max)
    if one.dtype == "float32" and largest > limit:
        found = f"{array.dtype.name} values up to {largest:.3g}, which overflow float32"
        raise _bad(path, found, f"at most {limit:.3g}")


def _bad(path: Path, found: str, expected: str) -> Refused:
    return Refused(
        "PL-621", "a file of the calibration data cannot be used", where=str(path), found=found, expected=expected,
        next_step="Take the file out of target.calibration.dir, or mend it",
    )  # fmt: skip


def is_blank(array: NDArray[np.generic]) -> bool:
    """Whether every element is the same: such a sample only narrows the ranges that are measured."""
    return bool(array.size) and bool((array == array.flat[0]).all())
