"""Inputs from files: seen by their header without numpy, read when they are needed."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import Refused
from pipeline.samples.files import look
from pipeline.samples.make import make_samples
from pipeline.samples.spec import parse_inputs


def sample(path: Path, **leaf: Any) -> np.ndarray[Any, Any]:
    specs = parse_inputs({"x": {"fill": {"file": str(path)}, **leaf}})
    return make_samples(specs, seed=0, stream="export")["x"]


def test_an_array_brings_its_shape_and_type(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    np.save(tmp_path / "x.npy", array)
    assert np.array_equal(sample(tmp_path / "x.npy"), array)
    assert sample(tmp_path / "x.npy").dtype == np.int32


def test_a_big_endian_and_fortran_array(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    np.save(tmp_path / "x.npy", array)
    got = sample(tmp_path / "x.npy")
    assert got.dtype == np.dtype("float32")
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    assert np.array_equal(got, array)


def test_an_archive_is_searched_by_the_inputs_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3, np.float32), y=np.zeros(2, np.float32))
    assert np.array_equal(sample(tmp_path / "a.npz"), np.ones(3))


def test_an_archive_is_searched_by_the_configured_name_after_renaming(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3, np.float32), y=np.zeros(2, np.float32))
    specs = parse_inputs({"x": {"fill": {"file": str(tmp_path / "a.npz")}}}).renamed(["image"])
    assert make_samples(specs, seed=0, stream="export")["image"].tolist() == [1, 1, 1]


def test_an_archive_without_that_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", xx=np.ones(3, np.float32), y=np.zeros(2, np.float32))
    with pytest.raises(
        Refused, match=r"PL-205.*the archive has no array x; found xx, y. Rename the input to xx"
    ):
        sample(tmp_path / "a.npz")


@pytest.mark.parametrize(("dtype", "highest"), [("float32", 1.0), ("uint8", 255)])
def test_an_image(tmp_path: Path, dtype: str, highest: float) -> None:
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[..., 0] = 255
    Image.fromarray(picture).save(tmp_path / "x.png")
    got = sample(tmp_path / "x.png", shape=[2, 3, 5, 8], dtype=dtype)
    assert (got.shape, str(got.dtype)) == ((2, 3, 5, 8), dtype)
    assert (got[:, 0] == highest).all()
    assert (got[:, 1:] == 0).all()


def test_a_damaged_image(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[:40])
    with pytest.raises(Refused, match=r"PL-205.*the image is damaged"):
        sample(tmp_path / "x.png", shape=[1, 3, 5, 8])


def header(text: str) -> bytes:
    data = text.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff",
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        header("{'descr': '<f4', 'fortran_order': False}"),
        header("__import__('os').system('touch pwned')"),
        header("[" * 5000),
        b"PK\x03\x04 not really",
    ],
)
def test_what_is_no_array_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(Refused, match=r"PL-205"):
        look(str(tmp_path / "x.npy"), "x", "model.inputs.x.fill.file")
    assert not (tmp_path / "pwned").exists()


def test_data_cut_short_is_refused_when_it_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(1000, np.float32))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:-10])
    with pytest.raises(Refused, match=r"PL-205: model.inputs.x.fill.file: the file is damaged"):
        sample(tmp_path / "x.npy")


def test_a_file_that_changed_meanwhile(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(4, np.float32))
    specs = parse_inputs({"x": {"fill": {"file": str(tmp_path / "x.npy")}}})
    np.save(tmp_path / "x.npy", np.ones(5, np.float32))
    with pytest.raises(Refused, match=r"the file has changed"):
        make_samples(specs, seed=0, stream="export")


def test_an_array_that_would_unpack_to_gigabytes(tmp_path: Path) -> None:
    text = header("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000,), }\n")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", text)
    with pytest.raises(Refused, match=r"PL-201.*too large"):
        parse_inputs({"x": {"fill": {"file": str(tmp_path / "x.npz")}}})


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"PL-205.*No such file"):
        parse_inputs({"x": {"shape": [1], "fill": {"file": str(tmp_path / "no.npy")}}})


def test_the_file_s_content_is_in_the_specification_s_data(tmp_path: Path) -> None:
    data = []
    for folder, value in (("one", 1), ("two", 1), ("three", 2)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "x.npy"
        np.save(path, np.full(3, value, np.float32))
        specs = parse_inputs({"x": {"fill": {"file": str(path)}}})
        assert list(specs.files()) == [str(path)]
        data.append(specs.data())
    assert data[0] == data[1]
    assert data[0] != data[2]


def test_a_file_in_another_size_is_cut_or_repeated(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asarray([[1, 2], [3, 4]], np.float32))
    specs = parse_inputs({"x": {"fill": {"file": str(tmp_path / "x.npy")}, "dynamic": {0: "n"}}})
    assert make_samples(specs, seed=0, stream="x", sizes={"n": 3})["x"].tolist() == [[1, 2], [3, 4], [1, 2]]
    assert make_samples(specs, seed=0, stream="x", sizes={"n": 1})["x"].tolist() == [[1, 2]]


def test_a_scalar_of_a_file_stays_a_scalar(tmp_path: Path) -> None:
    """The defect: numpy.ascontiguousarray makes one dimension of none."""
    np.save(tmp_path / "x.npy", np.float32(2.5))
    assert sample(tmp_path / "x.npy").shape == ()
