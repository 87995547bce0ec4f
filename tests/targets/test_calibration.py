"""The user's calibration data: which files are used, and what is read from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import Refused
from pipeline.targets.calibration import (
    MOST,
    CalibratedInput,
    find_samples,
    folder_name,
    is_blank,
    read_sample,
)

IMAGE = CalibratedInput("image", (1, 3, 8, 6), colours="rgb")


def _pixels(seed: int, height: int = 8, width: int = 6) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _images(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(_pixels(index)).save(folder / f"{index:03d}.png")
    return folder


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colours", ["rgb", "bgr"])
def test_an_image_in_every_order(tmp_path: Path, layout: Any, colours: Any) -> None:
    shape = (1, 3, 8, 6) if layout == "NCHW" else (1, 8, 6, 3)
    one = CalibratedInput("image", shape, "float32", colours, layout)
    samples = find_samples(_images(tmp_path), [one])
    expected = _pixels(1).astype(np.float32)
    if colours == "bgr":
        expected = expected[:, :, ::-1]
    if layout == "NCHW":
        expected = expected.transpose(2, 0, 1)
    found = read_sample(samples, one, 1)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert np.array_equal(found, expected[None])


def test_gray_and_yuv_and_uint8(tmp_path: Path) -> None:
    folder = _images(tmp_path)
    gray = CalibratedInput("image", (1, 1, 8, 6), "uint8", "gray")
    with Image.open(folder / "000.png") as image:
        assert np.array_equal(
            read_sample(find_samples(folder, [gray]), gray, 0)[0, 0], np.asarray(image.convert("L"))
        )
    yuv = CalibratedInput("image", (1, 3, 8, 6), "float32", "yuv444")
    found = read_sample(find_samples(folder, [yuv]), yuv, 0)
    red, green, blue = _pixels(0).astype(np.float64).transpose(2, 0, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert np.abs(found[0, 0] - luma).max() <= 1


def test_images_are_stretched_to_the_input(tmp_path: Path) -> None:
    Image.fromarray(np.full((30, 90, 3), 77, np.uint8)).save(tmp_path / "a.jpg")
    found = read_sample(find_samples(tmp_path, [IMAGE]), IMAGE, 0)
    assert found.shape == (1, 3, 8, 6)
    assert np.abs(found - 77).max() <= 1


def test_arrays_with_and_without_the_batch(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float64).reshape(1, 3, 4)
    one = CalibratedInput("x", (1, 3, 4))
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", array[0])
    samples = find_samples(tmp_path, [one])
    for index in range(2):
        found = read_sample(samples, one, index)
        assert found.dtype == np.float32
        assert np.array_equal(found, array)


def test_a_folder_an_input_and_archives(tmp_path: Path) -> None:
    inputs = [CalibratedInput("a/b", (1, 2)), CalibratedInput("c", (1, 3))]
    for index in range(4):
        for one in inputs:
            folder = tmp_path / "folders" / folder_name(one.name)
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{index}.npy", np.full(one.shape, index, np.float32))
    samples = find_samples(tmp_path / "folders", inputs)
    assert samples.count == 4
    assert [float(read_sample(samples, one, 2).max()) for one in inputs] == [2, 2]
    (tmp_path / "archives").mkdir()
    np.savez(tmp_path / "archives" / "0.npz", **{"a/b": np.ones((1, 2)), "c": np.zeros((1, 3))})
    samples = find_samples(tmp_path / "archives", inputs)
    assert [float(read_sample(samples, one, 0).max()) for one in inputs] == [1, 0]


def test_more_than_enough_are_spread_over_all(tmp_path: Path) -> None:
    for index in range(2 * MOST):
        (tmp_path / f"{index:04d}.npy").write_bytes(b"")
    samples = find_samples(tmp_path, [CalibratedInput("x", (1,))])
    names = [file.stem for file in samples.files["x"]]
    assert (samples.count, samples.left_out) == (MOST, MOST)
    assert names[:2] == ["0000", "0002"]
    assert names[-1] == f"{2 * MOST - 2:04d}"


def _uneven(folder: Path) -> None:
    for name, count in (("a", 2), ("c", 3)):
        (folder / name).mkdir()
        for index in range(count):
            np.save(folder / name / f"{index}.npy", np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("prepare", "inputs", "said"),
    [
        (lambda folder: None, [IMAGE], "an empty folder"),
        (lambda folder: (folder / "x.txt").write_text("x"), [IMAGE], "x.txt"),
        (_images, [CalibratedInput("image", (1, 3, 8, 6))], "input_type_train=rgb"),
        (_uneven, [CalibratedInput("a", (1, 2)), CalibratedInput("c", (1, 2))], "a: 2, c: 3"),
        (_images, [IMAGE, CalibratedInput("c", (1, 2))], "a folder image in it"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, prepare: Any, inputs: Any, said: str) -> None:
    prepare(tmp_path)
    with pytest.raises(Refused) as error:
        find_samples(tmp_path, inputs)
    assert error.value.reason.code == "PL-620"
    assert said in error.value.reason.sentence()
    with pytest.raises(Refused, match="no such folder"):
        find_samples(tmp_path / "nowhere", inputs)


@pytest.mark.parametrize(
    ("name", "content", "one", "said"),
    [
        ("a.png", b"no image", IMAGE, "pillow"),
        ("a.npy", b"no array", IMAGE, "numpy.save"),
        ("a.npy", np.zeros((1, 3, 8, 7)), IMAGE, "[1, 3, 8, 7]"),
        (
            "a.npy",
            np.full((1, 3, 8, 6), 300),
            CalibratedInput("image", (1, 3, 8, 6), "uint8", "rgb"),
            "0 to 255",
        ),
        ("a.png", None, CalibratedInput("image", (2, 3, 8, 6), colours="rgb"), "1 x C x H x W"),
        ("a.png", None, CalibratedInput("image", (1, 1, 8, 6), colours="rgb"), "1 channels"),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, name: str, content: Any, one: CalibratedInput, said: str
) -> None:
    path = tmp_path / name
    if content is None:
        Image.fromarray(_pixels(0)).save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(Refused) as error:
        read_sample(find_samples(tmp_path, [one]), one, 0)
    assert error.value.reason.code == "PL-621"
    assert said in error.value.reason.sentence()
    assert str(path) in error.value.reason.sentence()


def _one(value: float, dtype: Any) -> Any:
    array = np.zeros((1, 2, 3), dtype)
    array[0, 1, 2] = value
    return array


@pytest.mark.parametrize("written", ["float32", "uint8"])
@pytest.mark.parametrize(
    ("array", "said"),
    [
        (_one(np.nan, np.float32), "NaN in 1 of 6 elements, first at [0, 1, 2]"),
        (_one(np.inf, np.float64), "infinity in 1 of 6 elements"),
        (_one(-np.inf, np.float16), "infinity in 1 of 6 elements"),
        (np.full((1, 2, 3), np.nan), "NaN in 6 of 6 elements, first at [0, 0, 0]"),
    ],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_what_is_not_finite_is_refused(
    tmp_path: Path, array: Any, said: str, written: str, ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    np.save(path, array) if ending == "npy" else np.savez(path, x=array)
    one = CalibratedInput("x", (1, 2, 3), written)
    with pytest.raises(Refused) as error:
        read_sample(find_samples(tmp_path, [one]), one, 0)
    reason = error.value.reason
    assert (reason.code, reason.where, reason.expected) == ("PL-621", str(path), "finite numbers")
    assert said in str(reason.found)
    assert "mend it" in str(reason.next_step)


def test_what_overflows_is_said_to_overflow_and_the_largest_float32_is_taken(tmp_path: Path) -> None:
    one = CalibratedInput("x", (1, 2, 3))
    np.save(tmp_path / "a.npy", np.full(one.shape, 1e300))
    with pytest.raises(Refused, match="float64 values up to 1e\\+300, which overflow float32"):
        read_sample(find_samples(tmp_path, [one]), one, 0)
    largest = float(np.finfo(np.float32).max)
    np.save(tmp_path / "a.npy", np.full(one.shape, -largest))
    assert (read_sample(find_samples(tmp_path, [one]), one, 0) == -largest).all()


def test_blank() -> None:
    assert is_blank(np.full((1, 2), 3.0))
    assert not is_blank(np.array([[1.0, 2.0]]))
