"""Weights from a file: nothing in it is run."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from conch.packaging.errors import PackagingError
from conch.packaging.source.weights import read_weights


class Code:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def refused(path: Path) -> str:
    """What is said of it."""
    with pytest.raises(PackagingError) as error:
        read_weights(path)
    return str(error.value)


@pytest.mark.parametrize("by_torch", [True, False], ids=["torch.save", "pickle"])
def test_pickled_code_is_not_run(tmp_path: Path, by_torch: bool) -> None:
    path, made = tmp_path / "net.pth", tmp_path / "made"
    if by_torch:
        torch.save({"weight": torch.ones(1), "code": Code(made)}, path)
    else:
        path.write_bytes(pickle.dumps({"code": Code(made)}, protocol=2))
    said = refused(path)
    assert not made.exists()
    assert "holds pickled code (posix.mkdir)" in said
    assert "torch.save(net.state_dict(), 'net.pth')" in said


def test_a_module_saved_whole_is_refused_with_what_to_save(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    said = refused(path)
    assert "holds pickled code (torch.nn.modules.linear.Linear)" in said
    assert "net.state_dict()" in said


def test_a_torchscript_archive_is_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with pytest.warns(Warning, match="deprecated"):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    assert "is a TorchScript archive" in refused(path)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("net.safetensors", b"nothing of the kind", "damaged or no safetensors file"),
        ("net.safetensors", b"", "damaged or no safetensors file"),
        ("net.pth", b"nothing of the kind", "damaged or not written by torch.save"),
        ("net.pth", b"", "damaged or not written by torch.save"),
        ("net.pth", pickle.dumps({"code": Code(Path("made"))}), "damaged or not written by torch.save"),
        ("net.npz", b"", "weights are read from .safetensors or .pth"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    said = refused(tmp_path / name)
    assert why in said
    assert "weights_only" not in said, "torch's advice to read it all the same"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([torch.ones(1)], "holds a list, not a module's weights"),
        ({"epoch": 1, "loss": 0.5, "weight": torch.ones(1)}, "holds more than tensors (epoch, loss)"),
        ({f"note{index}": index for index in range(9)}, "(note0, note1, note2, note3, …)"),
    ],
)
def test_a_checkpoint_without_known_weights_is_refused(tmp_path: Path, content: object, why: str) -> None:
    torch.save(content, tmp_path / "net.ckpt")
    assert why in refused(tmp_path / "net.ckpt")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(64, 64)}, tmp_path / "net.safetensors")
    torch.save({"weight": torch.ones(64, 64)}, tmp_path / "net.pth")
    for path in (tmp_path / "net.safetensors", tmp_path / "net.pth"):
        path.write_bytes(path.read_bytes()[:-2000])
        assert "damaged" in refused(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "are not there" in refused(tmp_path / "net.safetensors")
    assert "are no file" in refused(tmp_path)
