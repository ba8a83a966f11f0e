"""Example inputs: read from a file of arrays, or drawn after a description."""

from pathlib import Path

import numpy as np
import pytest

from conch.packaging.errors import PackagingError
from conch.packaging.source import example_input
from conch.packaging.source.example_input import parse_example, read_npz


def test_a_description_is_drawn_the_same_each_time() -> None:
    text = "x=float32[2,10]; ids = int64[3, 16]<30000;flag=bool[40];half=float16[4];n=uint8[500]<256;scalar=float64[]"
    drawn, again = parse_example(text), parse_example(text)
    assert {name: (array.dtype.name, array.shape) for name, array in drawn.items()} == {
        "x": ("float32", (2, 10)),
        "ids": ("int64", (3, 16)),
        "flag": ("bool", (40,)),
        "half": ("float16", (4,)),
        "n": ("uint8", (500,)),
        "scalar": ("float64", ()),
    }
    for name, array in drawn.items():
        np.testing.assert_array_equal(array, again[name])
    assert abs(float(drawn["x"].mean())) < 1
    assert drawn["x"].std() > 0.5
    assert 0 <= drawn["ids"].min() < drawn["ids"].max() < 30_000
    assert set(drawn["flag"].tolist()) == {False, True}
    assert drawn["n"].max() > 200


def test_an_id_is_always_below_its_limit() -> None:
    assert set(parse_example("ids=int32[64]<2")["ids"].tolist()) == {0, 1}
    assert parse_example("ids=int64[64]<1")["ids"].tolist() == [0] * 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("float32[2,10]", r"'float32\[2,10\]' is not understood; give a file.*x.npz"),
        ("", "'' is not understood"),
        ("x=float32[2];", "'' is not understood"),
        ("x=float32", "'x=float32' is not understood"),
        ("x.npy", "'x.npy' is not understood"),
        ("x=float32[2];x=float32[3]", "'x' is described twice"),
        ("x=float32[2,,3]", r"shape \[2,,3\] of the example input 'x'"),
        ("x=float32[0]", r"shape \[0\] of the example input 'x'"),
        ("x=float32[2,-1]", "not understood"),
        ("x=string[2]", "'x' cannot be drawn as string; one of .*float32.*or a file"),
        ("x=object[2]", "'x' cannot be drawn as object"),
        ("x=float32[2]<3", "a limit .<3. belongs to whole numbers only"),
        ("x=bool[2]<2", "a limit .<2. belongs to whole numbers only"),
        ("ids=int64[2,16]", r"'ids' is int64 and needs a limit: 'ids=int64\[2,16\]<N' draws from 0 to N-1"),
        ("ids=int8[2]<129", "limit 129 of the example input 'ids' is outside of what int8 holds"),
        ("ids=int8[2]<0", "limit 0 of"),
        ("x=float32[100000,100000]", "'x' has more than 1 GiB"),
    ],
)
def test_what_cannot_be_drawn(text: str, message: str) -> None:
    with pytest.raises(PackagingError, match=message):
        parse_example(text)


def test_a_file_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(6, dtype=np.float32).reshape(2, 3), text=np.array(["né", "b"]))
    for arrays in (parse_example(f" {tmp_path}/x.npz"), read_npz(tmp_path / "x.npz")):
        assert arrays["x"].dtype == np.float32
        assert arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert arrays["text"].tolist() == ["né", "b"]


def test_files_that_hold_no_named_arrays(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with pytest.raises(PackagingError, match=r"there is no file .*x.npz; give a file"):
        read_npz(file)
    with file.open("wb") as stream:
        np.save(stream, np.arange(3))
    with pytest.raises(PackagingError, match=r"x.npz holds one array without a name; save it with numpy.savez"):
        read_npz(file)
    with file.open("wb") as stream:
        np.savez(stream)
    with pytest.raises(PackagingError, match=r"x.npz holds no arrays"):
        read_npz(file)
    with file.open("wb") as stream:
        np.savez(stream, x=np.zeros((0, 4)))
    with pytest.raises(PackagingError, match=r"'x' in .*x.npz is empty \(shape \[0, 4\]\)"):
        read_npz(file)


def test_files_that_are_damaged_or_would_run_code(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, x=np.arange(1000))
    content = file.read_bytes()
    for damaged in (
        b"",
        b"text",
        content[:200],
        content[:-30],
        content.replace(b"\x05\x00\x00\x00", b"\x06\x00\x00\x00"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(PackagingError, match=r"x.npz cannot be read as arrays"):
            read_npz(file)
    with file.open("wb") as stream:
        np.savez(stream, x=np.array(["a", None], dtype=object))
    with pytest.raises(PackagingError, match=r"x.npz cannot be read as arrays.*strings as an array of dtype str"):
        read_npz(file)


def test_the_module_promises_what_it_says() -> None:
    for form in ("input=float32[2,10]", "ids=int64[2,16]<30000"):
        assert form in example_input._FORMS
        assert parse_example(form)


@pytest.mark.parametrize("spoil", ["data", "method", "encrypted"])
def test_a_file_of_arrays_that_cannot_be_unpacked(tmp_path: Path, spoil: str) -> None:
    file = tmp_path / "x.npz"
    np.savez_compressed(file, x=np.random.default_rng(0).random(1000))
    content = bytearray(file.read_bytes())
    entry = content.find(b"PK\x01\x02")
    if spoil == "data":
        content[200:260] = b"\xff" * 60
    elif spoil == "method":
        content[8] = content[entry + 10] = 99
    else:
        content[6] |= 1
        content[entry + 8] |= 1
    file.write_bytes(content)
    with pytest.raises(PackagingError, match="cannot be read as arrays"):
        read_npz(file)
