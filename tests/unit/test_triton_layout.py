"""What ends in Triton's repository, for every shape in which a model may come."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.model import ModelFormat
from conch.triton.errors import InvalidModelError
from conch.triton.layout import Tree, find_model, make_layout, plan_layout, read_tree

AUTO, REPOSITORY, ONNX = ModelFormat.AUTO, ModelFormat.REPOSITORY, ModelFormat.ONNX


def links(
    files: list[str], version: int = 1, name: str = "mlp", format: ModelFormat = AUTO, *, is_ensemble: bool = False
) -> dict[str, str]:
    found = find_model(Tree.of(files), name=name, format=format)
    return plan_layout(found, version=version, is_ensemble=is_ensemble).links


def refusal(files: list[str], version: int = 1, name: str = "mlp", format: ModelFormat = AUTO) -> str:
    with pytest.raises(InvalidModelError) as caught:
        links(files, version, name, format)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "mlp/", "wrapped/", "wrapped/mlp/", "mlp/mlp/"])
def test_a_model_directory_wherever_it_lies(prefix: str) -> None:
    files = ["config.pbtxt", "1/model.onnx", "2/model.onnx", "2/model.onnx.data", "labels.txt", "golden.json"]
    assert links([prefix + file for file in files], version=2) == {
        "2/model.onnx": f"{prefix}2/model.onnx",
        "2/model.onnx.data": f"{prefix}2/model.onnx.data",
        "labels.txt": f"{prefix}labels.txt",
        "golden.json": f"{prefix}golden.json",
    }


def test_of_a_repository_only_the_one_model() -> None:
    files = [
        "mlp/config.pbtxt",
        "mlp/1/model.onnx",
        "other/config.pbtxt",
        "other/1/model.onnx",
        "README.md",
        ".git/config",
    ]
    assert links(files) == {"1/model.onnx": "mlp/1/model.onnx"}
    assert links([f"repo/{file}" for file in files]) == {"1/model.onnx": "repo/mlp/1/model.onnx"}


def test_a_model_directory_without_a_configuration() -> None:
    assert links(["1/model.plan"]) == {"1/model.plan": "1/model.plan"}


@pytest.mark.parametrize("prefix", ["", "wrapped/"])
def test_a_bare_graph_keeps_its_name_and_takes_its_weights_along(prefix: str) -> None:
    files = [f"{prefix}resnet.onnx", f"{prefix}resnet.onnx.data"]
    found = find_model(Tree.of(files), name="mlp", format=AUTO)
    assert found.bare is not None
    assert (found.bare.name, found.has_config) == ("resnet.onnx", False)
    assert plan_layout(found, version=7).links == {f"7/{f.removeprefix(prefix)}": f for f in files}


@pytest.mark.parametrize("format", [AUTO, ONNX])
@pytest.mark.parametrize("prefix", ["", "wrapped/"])
def test_a_bare_graphs_golden_set_lies_in_the_models_folder(prefix: str, format: ModelFormat) -> None:
    files = [f"{prefix}{name}" for name in ("resnet.onnx", "resnet.onnx.data", "golden.json")]
    assert links(files, format=format) == {
        "1/resnet.onnx": f"{prefix}resnet.onnx",
        "1/resnet.onnx.data": f"{prefix}resnet.onnx.data",
        "golden.json": f"{prefix}golden.json",
    }
    assert links(["download", "golden.json"], format=ONNX) == {"1/download": "download", "golden.json": "golden.json"}


@pytest.mark.parametrize(
    ("files", "golden_set"),
    [
        (["config.pbtxt", "1/model.onnx", "golden.json"], "golden.json"),
        (["mlp/1/model.onnx", "mlp/golden.json", "other/1/x", "other/golden.json"], "mlp/golden.json"),
        (["repo/mlp/1/model.onnx", "repo/mlp/golden.json", "repo/golden.json"], "repo/mlp/golden.json"),
        (["m.onnx", "golden.json"], "golden.json"),
        (["mlp/1/model.onnx", "golden.json"], None),
        (["1/model.onnx", "1/golden.json"], None),
        (["1/model.onnx", "golden.json/x"], None),
    ],
)
def test_a_golden_set_is_found_in_the_models_folder_alone(files: list[str], golden_set: str | None) -> None:
    assert find_model(Tree.of(files), name="mlp", format=AUTO).golden_set == golden_set


def test_the_declared_format_decides() -> None:
    assert links(["download"], format=ONNX) == {"1/download": "download"}
    assert "expected is a Triton model directory" in refusal(["model.onnx"], format=REPOSITORY)
    assert "expected is one .onnx file" in refusal(["config.pbtxt", "1/model.onnx"], format=ONNX)


@pytest.mark.parametrize(
    ("format", "file", "backend"),
    [
        (ModelFormat.TORCHSCRIPT, "net.pt", "pytorch"),
        (ModelFormat.TENSORRT, "net.plan", "tensorrt"),
        (ModelFormat.PYTHON, "model.py", "python"),
        (ONNX, "net.onnx", "onnxruntime"),
    ],
)
def test_every_kind_of_bare_file_is_known_by_its_name_or_by_the_format(
    format: ModelFormat, file: str, backend: str
) -> None:
    for declared in (AUTO, format):
        found = find_model(Tree.of([f"packed/{file}", "packed/vocabulary.txt"]), name="mlp", format=declared)
        assert found.bare is not None
        assert (found.bare.name, found.bare.kind.backend) == (file, backend)
        assert plan_layout(found, version=3).links == {
            f"3/{file}": f"packed/{file}",
            "3/vocabulary.txt": "packed/vocabulary.txt",
        }
    alone = find_model(Tree.of(["download"]), name="mlp", format=format)
    assert alone.bare is not None
    assert (alone.bare.name, alone.bare.kind.backend) == ("download", backend)
    assert f"expected is {'the file' if file == 'model.py' else 'one .'}" in refusal(["a", "b"], format=format)


def test_a_bare_program_takes_its_packages_along_and_a_graph_no_folder() -> None:
    files = ["model.py", "helper.py", "lib/__init__.py", "lib/deep/rules.json", "golden.json"]
    placed = {**{f"1/{file}": file for file in files[:-1]}, "golden.json": "golden.json"}
    assert links(files) == links(files, format=ModelFormat.PYTHON) == placed
    assert links(["net.onnx", "notes/how.md"]) == {"1/net.onnx": "net.onnx"}


def test_several_files_that_could_be_the_model_are_named_and_the_format_decides() -> None:
    files = ["model.py", "net.onnx", "net.pt"]
    assert refusal(files) == (
        "each of the files model.py, net.onnx, net.pt could be the model; set spec.model.format to the one that is "
        "meant (ONNX or Python or TorchScript)"
    )
    found = find_model(Tree.of(files), name="mlp", format=ModelFormat.PYTHON)
    assert found.bare is not None
    assert found.bare.name == "model.py"
    assert refusal(["a.pt", "b.pt"]) == "the source holds the models a.pt, b.pt; put one into each source"


def test_what_is_foreign_at_a_repositorys_root_never_reaches_triton(tmp_path: Path) -> None:
    """Triton takes any folder there for a model, and fails to start or to load for it."""
    source = tmp_path / "fetched"
    for name in ("mlp/config.pbtxt", "mlp/1/model.onnx", "notes/a.md", ".git/config", "other/1/model.onnx", "top.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    found = find_model(read_tree(source), name="mlp", format=AUTO)
    make_layout(plan_layout(found, version=1), source, tmp_path / "repository" / "mlp")
    assert read_tree(tmp_path / "repository").files == {"mlp/1/model.onnx"}


def test_what_is_written_anew_does_not_touch_the_source(tmp_path: Path) -> None:
    (tmp_path / "fetched" / "1").mkdir(parents=True)
    source = tmp_path / "fetched" / "1" / "model.json"
    source.write_text("as fetched")
    found = find_model(read_tree(tmp_path / "fetched"), name="mlp", format=AUTO)
    layout = plan_layout(found, version=1)
    make_layout(layout, tmp_path / "fetched", tmp_path / "mlp", {"1/model.json": b"for Triton"})
    assert (tmp_path / "mlp" / "1" / "model.json").read_text() == "for Triton"
    assert source.read_text() == "as fetched"


def test_an_ensembles_lost_version_folder_comes_back(tmp_path: Path) -> None:
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched" / "config.pbtxt").write_text("")
    found = find_model(read_tree(tmp_path / "fetched"), name="mlp", format=AUTO)
    with pytest.raises(
        InvalidModelError, match=r"has no version folder; put its files into a folder 1 beside its conf"
    ):
        plan_layout(found, version=1)
    make_layout(plan_layout(found, version=1, is_ensemble=True), tmp_path / "fetched", tmp_path / "mlp")
    assert (tmp_path / "mlp" / "1").is_dir()


def test_errors_say_what_is_there_and_what_to_do() -> None:
    message = refusal(["config.pbtxt", "1/a", "3/a"], version=2)
    assert message == "the model has no version 2; it has 1, 3; set spec.model.version to one of them"
    message = refusal(["a/config.pbtxt", "b/1/x"], name="c")
    assert "the models a, b but none named 'c'" in message
    assert "spec.model.name" in message
    assert "the source holds model.bin, readme.txt" in refusal(["model.bin", "readme.txt"])
    assert refusal(["a/1/x", "README.md"], name="c") == (
        "the source holds the model a but none named 'c'; set spec.model.name to the one to serve"
    )
    assert "20 more" in refusal([f"f{i:02}" for i in range(32)])
    assert "a.onnx, b.onnx" in refusal(["a.onnx", "b.onnx"])
    assert "no file" in refusal([])
    assert "has 1;" in refusal(["config.pbtxt", "1/a", "02/a", "0/a"], version=2)


PATHS = st.lists(st.sampled_from(["mlp", "1", "2", "x", "config.pbtxt", "m.onnx", "01"]), min_size=1, max_size=4).map(
    "/".join
)


@given(
    files=st.sets(PATHS, max_size=8),
    version=st.integers(1, 3),
    format=st.sampled_from(ModelFormat),
    ensemble=st.booleans(),
)
def test_whatever_comes_the_repository_holds_only_files_of_the_source(
    files: set[str], version: int, format: ModelFormat, ensemble: bool
) -> None:
    tree = Tree.of(files)
    try:
        layout = plan_layout(find_model(tree, name="mlp", format=format), version=version, is_ensemble=ensemble)
    except InvalidModelError:
        return
    assert set(layout.links.values()) <= files
    assert len(set(layout.links.values())) == len(layout.links)
    assert "config.pbtxt" not in layout.links
    versions = {name.partition("/")[0] for name in layout.links if name.partition("/")[0].isdigit()}
    assert not versions & ({"1", "2", "3"} - {str(version)})


def test_links_share_their_bytes_with_the_fetched_tree(tmp_path: Path) -> None:
    source = tmp_path / "fetched" / "1" / "model.onnx"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"x")
    found = find_model(read_tree(tmp_path / "fetched"), name="mlp", format=AUTO)
    make_layout(plan_layout(found, version=1), tmp_path / "fetched", tmp_path / "mlp")
    assert (tmp_path / "mlp" / "1" / "model.onnx").stat().st_ino == source.stat().st_ino
