"""The configuration that is written for a graph."""

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import to_bytes
from conch.packaging.output.config import LABELS_FILE, model_config, signature_of
from conch.triton.config_pbtxt import format_config, parse_config
from conch.triton.onnx_signature import read_signature
from tests.support.packaging_graphs import linear, made, many_types, value


def test_of_a_classifier_with_labels() -> None:
    config = model_config(linear(), name="net", max_batch_size=8, labels_file=True)
    expected = f"""
        name: "net" backend: "onnxruntime" default_model_filename: "model.onnx" max_batch_size: 8
        input {{ name: "x" data_type: TYPE_FP32 dims: 4 }}
        output {{ name: "logits" data_type: TYPE_FP32 dims: 3 label_filename: "{LABELS_FILE}" }}
        dynamic_batching {{ }}
    """
    assert config == parse_config(expected)
    assert parse_config(format_config(config)) == config


def test_labels_are_of_scores_per_class_only() -> None:
    config = model_config(many_types(), name="net", max_batch_size=8, labels_file=True)
    assert {each.name for each in config.output if each.label_filename} == set()
    assert next(each for each in config.output if each.name == "sum").HasField("reshape")
    assert [list(each.dims) for each in config.input] == [[-1], [2]]


def test_nothing_that_belongs_to_the_deployment_or_could_kill_the_server() -> None:
    config = model_config(many_types(), name="net", max_batch_size=8, labels_file=True)
    assert not config.model_warmup
    assert not config.instance_group
    assert not config.HasField("version_policy")


@pytest.mark.parametrize(("size", "batching"), [(1, False), (2, True)])
def test_dynamic_batching_begins_with_two(size: int, batching: bool) -> None:
    config = model_config(linear(), name="net", max_batch_size=size, labels_file=False)
    assert config.max_batch_size == size
    assert config.HasField("dynamic_batching") is batching
    assert not config.output[0].label_filename


def test_a_graph_without_batches_keeps_its_first_axis() -> None:
    config = model_config(linear(batch=2), name="net", max_batch_size=0, labels_file=False)
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [2, 4])
    with pytest.raises(PackagingError, match="takes no batches: axis 0 of x, logits is not symbolic"):
        model_config(linear(batch=2), name="net", max_batch_size=4, labels_file=False)


def test_the_signature_is_what_the_agent_reads_of_the_file(tmp_path: Path) -> None:
    for number, graph in enumerate((linear(), linear(batch=1), many_types())):
        file = tmp_path / f"{number}.onnx"
        file.write_bytes(to_bytes(graph))
        assert signature_of(graph) == read_signature(file)


def test_what_triton_cannot_serve() -> None:
    complex_input = made(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", "batch", 2, kind=TensorProto.COMPLEX64)],
        [value("y", "batch", 2, kind=TensorProto.COMPLEX64)],
    )
    with pytest.raises(PackagingError, match="'x' has element type 14, which Triton cannot serve"):
        model_config(complex_input, name="net", max_batch_size=4, labels_file=False)
