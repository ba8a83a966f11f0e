"""A torch module as a graph: names, free axes, and what is refused, with the line where it is."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import clean, to_bytes
from conch.packaging.graph.parity import measure_parity
from conch.packaging.graph.session import Runner
from conch.packaging.request import DynamicAxis
from conch.packaging.source.torch_export import OPSET, export_module, run_module
from conch.packaging.source.torch_module import load_module
from conch.packaging.tensors import Array, Tensors
from tests.packaging import examples
from tests.packaging.conftest import Write
from tests.packaging.examples import Example


def floats(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def exported(module: torch.nn.Module, inputs: Tensors, *dynamic: DynamicAxis) -> onnx.ModelProto:
    """A graph that a runtime takes."""
    graph = export_module(module, inputs, dynamic)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def outputs(graph: onnx.ModelProto) -> list[str]:
    return [output.name for output in graph.graph.output]


def refused(write: Write, source: str, inputs: dict[str, Array], *dynamic: DynamicAxis) -> str:
    """What is said about the module `net` of a file."""
    module = load_module(f"{write(source)}:net", None)
    with pytest.raises(PackagingError) as error:
        export_module(module, inputs, dynamic)
    return str(error.value)


@pytest.mark.parametrize("example", examples.ALL, ids=lambda example: example.file)
def test_a_model_answers_as_its_module_does_at_every_batch_size(example: Example) -> None:
    module = load_module(example.reference, None)
    one = {name: array[:1] for name, array in example.inputs.items()}
    graph = clean(exported(module, one, *example.dynamic), dynamic=example.dynamic)
    assert [value.name for value in graph.graph.input] == list(example.inputs)
    assert graph.opset_import[0].version == OPSET
    assert graph.ir_version == 10
    runner = Runner(to_bytes(graph))
    assert {port.dims[0] for port in (*runner.inputs, *runner.outputs)} == {"batch"}
    parity = measure_parity(lambda inputs: run_module(module, inputs), runner, example.inputs)
    assert list(parity.by_batch) == [1, 2, 3, 7, 32]


def test_a_dynamic_axis_takes_every_length_of_its_range() -> None:
    example = examples.TEXT
    module = load_module(example.reference, None)
    runner = Runner(to_bytes(clean(exported(module, example.inputs, *example.dynamic), dynamic=example.dynamic)))
    for length in (2, 5, 64):
        texts = {"input_ids": np.full((3, length), 7), "attention_mask": np.ones((3, length), np.int64)}
        measure_parity(lambda inputs: run_module(module, inputs), runner, texts, batch_sizes=(1, 3))


def test_outputs_bear_the_names_of_a_dict_a_named_tuple_or_their_numbers(write: Write) -> None:
    assert outputs(exported(load_module(examples.CLASSIFIER.reference, None), examples.CLASSIFIER.inputs)) == [
        "probabilities",
        "label",
    ]
    assert outputs(exported(load_module(examples.SEQUENCE.reference, None), examples.SEQUENCE.inputs)) == [
        "scores",
        "state",
    ]
    source = """
        import torch
        class Net(torch.nn.Module):
            def forward(self, x):
                return x + 1, {"sum": x.sum(1), "parts": [x * 2, x]}
    """
    module = load_module(f"{write(source)}:Net", None)
    graph = exported(module, {"x": floats(1, 4)})
    assert set(outputs(graph)) == {"output_0", "output_1_sum", "output_1_parts_0", "output_1_parts_1"}
    measure_parity(lambda inputs: run_module(module, inputs), Runner(to_bytes(graph)), {"x": floats(3, 4)})


def test_an_output_may_have_the_name_that_torch_gives_an_inner_value(write: Write) -> None:
    source = """
        import torch
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = torch.nn.Linear(4, 3), torch.nn.Linear(3, 3)
            def forward(self, x):
                return {"linear_1": self.two(self.one(x)).relu(), "one.weight": x + 1, "linear": x * 2}
    """
    module = load_module(f"{write(source)}:Net", None)
    graph = exported(module, {"x": floats(2, 4)})
    assert set(outputs(graph)) == {"linear_1", "one.weight", "linear"}
    measure_parity(lambda inputs: run_module(module, inputs), Runner(to_bytes(graph)), {"x": floats(3, 4)})


def test_a_branch_by_torch_cond_keeps_its_names(write: Write) -> None:
    source = """
        import torch
        class Net(torch.nn.Module):
            def forward(self, x):
                return {"mul": torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))}
    """
    module = load_module(f"{write(source)}:Net", None)
    runner = Runner(to_bytes(exported(module, {"x": floats(2, 4)})))
    for x in (np.ones((3, 4), np.float32), -np.ones((3, 4), np.float32)):
        assert np.array_equal(runner.run({"x": x})["mul"], run_module(module, {"x": x})["mul"])


def test_one_tensor_returned_twice_and_an_input_returned_are_outputs_of_their_own(write: Write) -> None:
    source = """
        import torch
        class Net(torch.nn.Module):
            def forward(self, x, unused):
                doubled = x * 2
                return {"same": x, "a": doubled, "b": doubled}
    """
    module = load_module(f"{write(source)}:Net", None)
    graph = exported(module, {"unused": floats(1, 2), "x": floats(1, 4)})
    assert [value.name for value in graph.graph.input] == ["x", "unused"], "the order of forward"
    assert outputs(graph) == ["same", "a", "b"]
    answer = Runner(to_bytes(graph)).run({"x": floats(3, 4), "unused": floats(3, 2)})
    assert np.array_equal(answer["same"], floats(3, 4))
    assert np.array_equal(answer["a"], answer["b"])


def test_a_module_in_training_mode_is_exported_as_it_serves_and_stays_as_it_is() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.9), torch.nn.BatchNorm1d(8))
    module[0].eval()
    runner = Runner(to_bytes(exported(module, {"input": floats(2, 4)})))
    assert (module.training, module[0].training, module[1].training) == (True, False, True)
    measure_parity(lambda inputs: run_module(module, inputs), runner, {"input": floats(5, 4)})
    assert module[2].num_batches_tracked == 0


def test_torchs_encoder_answers_at_padded_places_as_its_layers_do(write: Write) -> None:
    source = """
        import torch
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
                self.encoder = torch.nn.TransformerEncoder(layer, 2)
            def forward(self, x, mask):
                return self.encoder(x, src_key_padding_mask=mask == 0)
    """
    module = load_module(f"{write(source)}:Net", None)
    inputs = {"x": floats(5, 6, 8), "mask": (np.arange(6) < np.array([[2], [6], [3], [1], [5]])).astype(np.int64)}
    runner = Runner(to_bytes(exported(module, inputs)))
    measure_parity(lambda inputs: run_module(module, inputs), runner, inputs)
    assert torch.backends.mha.get_fastpath_enabled()


def test_nothing_is_printed_while_it_exports(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    exported(load_module(examples.LINEAR.reference, None), examples.LINEAR.inputs)
    refused(write, BRANCH, {"x": floats(2, 4)})
    assert capfd.readouterr() == ("", "")


BRANCH = """
    import torch
    class Net(torch.nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x * 2
            return x
    net = Net()
"""


def test_a_branch_on_the_data_is_refused_with_its_line(write: Write) -> None:
    said = refused(write, BRANCH, {"x": floats(2, 4)})
    assert "model.py:4" in said
    assert "torch.cond" in said
    assert "\x1b" not in said


def test_a_count_from_the_data_is_refused_with_its_line(write: Write) -> None:
    source = """
        import torch
        class Net(torch.nn.Module):
            def forward(self, x):
                for _ in range(int(x.abs().max().item())):
                    x = x + 1
                return x
        net = Net()
    """
    said = refused(write, source, {"x": floats(2, 4)})
    assert "model.py:4" in said
    assert "fixed count" in said


LSTM_WITH_A_STATE = """
    import torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 3, batch_first=True)
        def forward(self, x):
            state = torch.zeros(1, {rows}, 3)
            return self.lstm(x, (state, state))[0][:, -1]
    net = Net()
"""


@pytest.mark.parametrize("rows", [1, 2])
def test_an_lstm_with_a_state_for_a_fixed_batch_is_refused(write: Write, rows: int) -> None:
    said = refused(write, LSTM_WITH_A_STATE.format(rows=rows), {"x": floats(rows, 5, 4)})
    assert "the batch axis is frozen" in said
    assert "model.py:8" in said
    assert "x.shape[0]" in said


def test_an_output_whose_first_axis_is_another_is_refused(write: Write) -> None:
    net = "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return {}\nnet = Net()\n"
    assert "'output' [4, s77]" in refused(write, net.format("x.T"), {"x": floats(2, 4)})
    assert "4*s77" in refused(write, net.format("x.reshape(-1)"), {"x": floats(2, 4)})
    assert "'loss' (a scalar)" in refused(write, net.format('{"y": x, "loss": x.sum()}'), {"x": floats(2, 4)})
    assert "is not the batch" in refused(write, net.format("x[x[:, 0] > 0]"), {"x": floats(4, 4)})


@pytest.mark.parametrize(
    ("body", "inputs", "operator"),
    [
        ("return torch._int_mm(x, torch.ones(16, 8, dtype=torch.int8))", np.ones((32, 16), np.int8), "aten::_int_mm"),
        ("return torch.linalg.eigvalsh(x)", floats(1, 4, 4), "aten::_linalg_eigh"),
    ],
)
def test_an_operator_without_an_onnx_form_is_named_with_its_line(
    write: Write, body: str, inputs: Array, operator: str
) -> None:
    source = f"import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        {body}\nnet = Net()\n"
    said = refused(write, source, {"x": inputs})
    assert said.startswith(f"{operator} has no ONNX form at model.py:4")


def test_code_that_leaves_torch_is_refused_with_its_line(write: Write) -> None:
    body = "return torch.from_numpy(x.numpy() * 2)"
    source = f"import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        {body}\nnet = Net()\n"
    assert "cannot be exported at model.py:4" in refused(write, source, {"x": floats(2, 4)})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('return {"x": x + 1}', "both an input and an output"),
        ('return {"a": (x, x + 1), "a_1": x * 2}', "two outputs of the module are named 'a_1'"),
        ("return {0: x}", "the key 0"),
        ("return x, None", "'output_1' is a NoneType"),
        ("return ()", "returns nothing"),
        ("return x.bfloat16()", "bfloat16"),
    ],
)
def test_outputs_that_cannot_be_served_are_refused(write: Write, body: str, why: str) -> None:
    source = f"import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        {body}\nnet = Net()\n"
    assert why in refused(write, source, {"x": floats(2, 4)})


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({}, "no tensor"),
        ({"y": floats(2, 4)}, "takes (x, scale), and the example has (y)"),
        ({"x": floats(2, 4), "z": floats(2, 4)}, "takes (x, scale), and the example has (x, z)"),
        ({"x": np.float32(1)}, "is a scalar"),
        ({"x": floats(2, 4), "scale": floats(3, 4)}, "x 2, scale 3"),
        ({"x": floats(2, 5)}, "fails on the example at model.py:7"),
        ({"x": floats(2, 4).astype(np.float64)}, "should it be float32?"),
        ({"x": np.array(["a", "b"])}, "--tokenizer"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(write: Write, inputs: dict[str, Any], why: str) -> None:
    source = """
        import torch
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(4, 3)
            def forward(self, x, scale=None):
                return self.layer(x)
        net = Net()
    """
    inputs = {name: np.asarray(array) for name, array in inputs.items()}
    assert why in refused(write, source, inputs)


def test_inputs_without_names_are_refused(write: Write) -> None:
    source = "import torch\nclass Net(torch.nn.Module):\n    def forward(self, *inputs):\n        return inputs[0]\n"
    assert "takes *inputs" in refused(write, f"{source}\nnet = Net()\n", {"x": floats(2, 4)})


POSITIONS = """
    import torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = torch.nn.Embedding(9, 3)
            self.positions = torch.nn.Parameter(torch.zeros(32, 3))
        def forward(self, ids):
            return (self.tokens(ids) + self.positions[: ids.shape[1]]).mean(1)
    net = Net()
"""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"most": 128}, "seq = Dim('seq', max=32)"),
        ({"input": "other"}, "the inputs are ids"),
        ({"axis": 2}, "2 axes"),
        ({"axis": 0}, "0 is the batch"),
        ({"name": "batch"}, "another name"),
        ({"name": "a b"}, "another name"),
        ({"least": 8}, "its length in the example is 6"),
    ],
)
def test_a_dynamic_axis_that_the_module_does_not_have_is_refused(
    write: Write, change: dict[str, Any], why: str
) -> None:
    fields: dict[str, Any] = {"input": "ids", "axis": 1, "name": "seq", "least": 2, "most": 32} | change
    axis = DynamicAxis(**fields)
    assert why in refused(write, POSITIONS, {"ids": np.ones((1, 6), np.int64)}, axis)


def test_an_example_of_length_one_on_a_dynamic_axis_is_refused(write: Write) -> None:
    axis = DynamicAxis(input="ids", axis=1, name="seq", least=1, most=32)
    assert "1 for a constant" in refused(write, POSITIONS, {"ids": np.ones((1, 1), np.int64)}, axis)


def test_two_ranges_for_one_name_are_refused() -> None:
    module = load_module(examples.TEXT.reference, None)
    ids, mask = examples.TEXT.dynamic
    other = DynamicAxis(input=mask.input, axis=1, name=mask.name, least=2, most=32)
    with pytest.raises(PackagingError, match="give both one range"):
        export_module(module, examples.TEXT.inputs, (ids, other))


def test_the_same_module_gives_the_same_bytes_in_another_folder_and_process(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np, tests.packaging.examples as e\n"
        "from conch.packaging.graph.clean import clean, to_bytes\n"
        "from conch.packaging.source.torch_export import export_module\n"
        "from conch.packaging.source.torch_module import load_module\n"
        "graph = export_module(load_module(sys.argv[1], None), e.TEXT.inputs, e.TEXT.dynamic)\n"
        "sys.stdout.buffer.write(to_bytes(clean(graph, dynamic=e.TEXT.dynamic)))\n"
    )
    source = (examples.MODELS / "text.py").read_text()
    made = set()
    for folder in ("here", "somewhere/else"):
        (tmp_path / folder).mkdir(parents=True)
        model = tmp_path / folder / "model.py"
        model.write_text(source)
        repository = str(examples.MODELS.parents[2])
        finished = subprocess.run(
            [sys.executable, "-c", program, f"{model}:net"], cwd=repository, check=True, capture_output=True
        )
        assert finished.stderr == b"", "torch logs at its first export in a process"
        made.add(finished.stdout)
    assert len(made) == 1
    (content,) = made
    assert len(content) > 400_000, "the weights are in it"
    assert str(tmp_path).encode() not in content
    assert b"model.py" not in content
