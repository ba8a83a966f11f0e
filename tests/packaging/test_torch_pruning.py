"""Structured pruning: what is taken out, what stays, and that the rest is exported as before."""

import numpy as np
import pytest
import torch

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import clean, to_bytes
from conch.packaging.graph.parity import measure_parity
from conch.packaging.graph.session import Runner
from conch.packaging.source.torch_export import export_module, run_module
from conch.packaging.source.torch_module import load_module
from conch.packaging.source.torch_pruning import prune_module
from conch.packaging.tensors import Array
from tests.packaging import examples
from tests.packaging.conftest import Write
from tests.packaging.examples import Example


def floats(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name.removesuffix(".weight"): tuple(p.shape) for name, p in module.named_parameters() if p.ndim > 1}


HALVED: dict[str, dict[str, tuple[int, ...]]] = {
    "regression.py": {"0": (32, 10), "2": (32, 32), "4": (1, 32)},
    "digits.py": {"first": (16, 1, 3, 3), "second": (32, 16, 3, 3), "hidden": (64, 800), "head": (10, 64)},
    "sequence.py": {"lstm.weight_ih_l0": (256, 8), "hidden": (16, 64), "head": (5, 16)},
    "text.py": {
        "tokens": (500, 32),
        "positions": (64, 32),
        "layers.0.query": (64, 32),  # what attention cuts into heads stays whole
        "layers.0.key": (64, 32),
        "layers.0.value": (64, 32),
        "layers.0.out": (32, 64),
        "layers.1.wide": (128, 32),
        "layers.1.narrow": (32, 128),
        "head": (4, 32),
    },
}


@pytest.mark.parametrize(
    "example", [example for example in examples.ALL if example.file in HALVED], ids=lambda example: example.file
)
def test_half_of_the_channels_go_and_the_outputs_stay(example: Example) -> None:
    module = load_module(example.reference, None)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    pruned = prune_module(module, example.inputs, share=0.5, finetune=None)
    assert HALVED[example.file].items() <= shapes(pruned).items()
    assert not pruned.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items()), "it is a copy"
    one = {name: array[:1] for name, array in example.inputs.items()}
    graph = clean(export_module(pruned, one, example.dynamic), dynamic=example.dynamic)
    measure_parity(lambda inputs: run_module(pruned, inputs), Runner(to_bytes(graph)), example.inputs)


def test_the_channels_of_the_least_magnitude_go() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([5.0, 0.1, 4.0, 0.2])[:, None] * torch.ones(4, 3))
        module[1].weight.fill_(1)
    pruned = prune_module(module, {"input": floats(2, 3)}, share=0.5, finetune=None)
    assert pruned[0].weight[:, 0].tolist() == [5, 4]


def test_layers_that_end_in_one_output_keep_their_widths_together(write: Write) -> None:
    source = """
        import torch
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.c = torch.nn.Linear(4, 16), torch.nn.Linear(16, 16), torch.nn.Linear(16, 3)
                self.skip = torch.nn.Linear(4, 3)
            def forward(self, x):
                a = self.a(x).relu()
                return (self.c(self.b(a) + a) + self.skip(x)).softmax(-1)
    """
    pruned = prune_module(load_module(f"{write(source)}:Net", None), {"x": floats(1, 4)}, share=0.5, finetune=None)
    assert shapes(pruned) == {"a": (8, 4), "b": (8, 8), "c": (3, 8), "skip": (3, 4)}


def test_a_layer_whose_width_stands_in_the_code_stays_whole(write: Write) -> None:
    source = """
        import torch
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.c = torch.nn.Linear(4, 16), torch.nn.Linear(16, 16), torch.nn.Linear(16, 3)
            def forward(self, x):
                return self.c(self.b(self.a(x).relu().reshape(-1, 16)).relu())
    """
    pruned = prune_module(load_module(f"{write(source)}:Net", None), {"x": floats(1, 4)}, share=0.5, finetune=None)
    assert shapes(pruned) == {"a": (16, 4), "b": (8, 16), "c": (3, 8)}


def test_torchs_own_attention_stays_whole() -> None:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module = torch.nn.Sequential(layer, torch.nn.Linear(8, 2)).eval()
    pruned = prune_module(module, {"input": floats(2, 5, 8)}, share=0.5, finetune=None)
    assert shapes(pruned)["0.self_attn.in_proj_weight"] == (24, 8)
    assert shapes(pruned)["0.linear1"] == (8, 8)


TRAIN = """
    import torch
    def fit(module):
        assert module.training
        with torch.no_grad():
            module[-1].bias.copy_(torch.rand(10))
    def returns(module):
        return torch.nn.Sequential(*module, torch.nn.Identity())
    def widens(module):
        return torch.nn.Linear(10, 11)
    def returns_loss(module):
        return 0.5
    def fails(module):
        return module.nothing
    def needs(module, data):
        return module
"""


def pruned_linear(finetune: str | None) -> torch.nn.Module:
    module = load_module(examples.LINEAR.reference, None)
    return prune_module(module, examples.LINEAR.inputs, share=0.5, finetune=finetune)


def test_the_users_training_gets_the_pruned_module(write: Write) -> None:
    write(TRAIN, name="train.py")
    first, second = pruned_linear("train.py:fit"), pruned_linear("train.py:fit")
    assert shapes(first) == {"0": (10, 10), "2": (10, 10)}
    assert not first.training
    assert torch.equal(first[2].bias, second[2].bias), "trained with the same random numbers"
    assert not torch.equal(first[2].bias, pruned_linear(None)[2].bias)
    assert len(pruned_linear("train.py:returns")) == 4


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fails", "train.py:fails(module) failed at train.py:13: AttributeError"),
        ("needs", "train.py:needs(module) failed: TypeError: needs() missing 1 required positional argument: 'data'"),
        ("returns_loss", "train.py:returns_loss returned a float; train the given module in place"),
        ("widens", "after train.py:widens the module's outputs are {'output': (5, 11)} instead of {'output': (5, 10)}"),
        ("nothing", "train.py has no 'nothing'"),
    ],
)
def test_training_that_goes_wrong_is_told(write: Write, name: str, why: str) -> None:
    write(TRAIN, name="train.py")
    with pytest.raises(PackagingError) as error:
        pruned_linear(f"train.py:{name}")
    assert why in str(error.value)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 50.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(PackagingError, match="between 0 and 1"):
        prune_module(torch.nn.Linear(2, 2), {"input": floats(1, 2)}, share=share, finetune=None)


def test_a_share_of_all_channels_is_refused() -> None:
    module = load_module(examples.LINEAR.reference, None)
    with pytest.raises(PackagingError, match="of the channels of '0' would leave none of them"):
        prune_module(module, examples.LINEAR.inputs, share=0.99, finetune=None)


def test_the_smallest_share_takes_one_channel() -> None:
    module = load_module(examples.LINEAR.reference, None)
    assert shapes(prune_module(module, examples.LINEAR.inputs, share=0.001, finetune=None))["0"] == (19, 10)


@pytest.mark.parametrize(
    ("module", "shape", "layers"),
    [
        (torch.nn.Linear(4, 2), (1, 4), "''"),
        (torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()), (1, 4), "'0'"),
        (torch.nn.LSTM(4, 3, batch_first=True), (1, 5, 4), "''"),
        (torch.nn.ReLU(), (1, 4), "it has none"),
    ],
    ids=["one layer", "output layer", "recurrent", "no layer"],
)
def test_a_module_without_channels_to_take_out_is_refused(
    module: torch.nn.Module, shape: tuple[int, ...], layers: str
) -> None:
    with pytest.raises(PackagingError, match="nothing of the module can be pruned") as error:
        prune_module(module, {"input": floats(*shape)}, share=0.5, finetune=None)
    assert f"({layers})" in str(error.value)


def test_a_module_that_fails_on_the_example_is_told_as_such() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    with pytest.raises(PackagingError, match="the module fails on the example"):
        prune_module(module, {"input": floats(1, 5)}, share=0.5, finetune=None)
