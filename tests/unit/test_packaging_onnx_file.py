"""An ONNX file is read whole, or the message says what is wrong with it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import clean, to_bytes
from conch.packaging.graph.session import Runner
from conch.packaging.source.onnx_file import read_onnx
from tests.contract.models import classifier

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def with_external_data(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(
        ModelProto.FromString(classifier()),
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    return path


def test_the_model_of_the_file(tmp_path: Path) -> None:
    assert read_onnx(written(tmp_path / "m.onnx", classifier())) == ModelProto.FromString(classifier())


def test_weights_beside_the_file_come_with_it(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size == 4 * 3 * 4
    model = read_onnx(path)
    (tmp_path / "model.onnx.data").unlink()
    # The same file as if it had never been in two parts.
    assert to_bytes(clean(model)) == to_bytes(clean(ModelProto.FromString(classifier())))
    np.testing.assert_array_equal(
        Runner(to_bytes(model)).run({"x": X})["scores"], Runner(classifier()).run({"x": X})["scores"]
    )


def test_weights_of_a_constant_come_with_it(tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "constant")
    model = ModelProto.FromString(classifier())
    del model.graph.initializer[:]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["weights"], value=weights))
    onnx.save(
        model,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
        convert_attribute=True,
    )
    assert (tmp_path / "m.data").exists()
    read = read_onnx(tmp_path / "m.onnx")
    assert onnx.numpy_helper.to_array(read.graph.node[0].attribute[0].t).tolist() == np.ones((4, 3)).tolist()


def test_weights_that_are_missing(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    renamed = path.rename(tmp_path / "net.onnx")
    read_onnx(renamed)  # only the model's own name is free
    (tmp_path / "model.onnx.data").rename(tmp_path / "net.onnx.data")
    with pytest.raises(
        PackagingError, match=r"'weights' of .*net.onnx lie in 'model.onnx.data' beside it.*copy that file"
    ):
        read_onnx(renamed)


def test_weights_that_are_cut_off(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    data = tmp_path / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(PackagingError, match=r"'weights' of .*model.onnx lie in 'model.onnx.data'.*cannot be read"):
        read_onnx(path)


def test_weights_outside_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = with_external_data(folder)
    (folder / "model.onnx.data").rename(tmp_path / "model.onnx.data")
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../model.onnx.data"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PackagingError, match=r"lie in '../model.onnx.data'.*cannot be read"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no graph in its 0 bytes"),
        (classifier()[:-20], "damaged or no ONNX file"),
        (b"PK\x03\x04 a zip file, such as .pt", "damaged or no ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "pointer of Git LFS.*git lfs pull"),
        (b"\x08\x0a", "no graph"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(PackagingError, match=message) as caught:
        read_onnx(written(tmp_path / "m.onnx", content))
    assert "m.onnx" in str(caught.value)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    content = classifier()
    for length in range(0, len(content), 7):
        with pytest.raises(PackagingError, match=r"damaged|valid"):
            read_onnx(written(tmp_path / "m.onnx", content[:length]))


def test_a_graph_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match=r"no valid ONNX model: .*Xoftmax"):
        read_onnx(written(tmp_path / "m.onnx", classifier().replace(b"Softmax", b"Xoftmax")))


def test_a_newer_opset(tmp_path: Path) -> None:
    model = ModelProto.FromString(classifier())
    model.opset_import[0].version = 99
    with pytest.raises(PackagingError, match=r"opset 99, onnx .* knows up to \d+; upgrade it .*opset_version=20"):
        read_onnx(written(tmp_path / "m.onnx", model.SerializeToString()))


def test_a_newer_ir(tmp_path: Path) -> None:
    model = ModelProto.FromString(classifier())
    model.ir_version = 99
    with pytest.raises(PackagingError, match=r"IR version 99, onnx .* knows up to \d+; upgrade it"):
        read_onnx(written(tmp_path / "m.onnx", model.SerializeToString()))


def test_a_file_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match=r"m.onnx cannot be read: No such file"):
        read_onnx(tmp_path / "m.onnx")
    with pytest.raises(PackagingError, match="cannot be read: Is a directory"):
        read_onnx(tmp_path)
