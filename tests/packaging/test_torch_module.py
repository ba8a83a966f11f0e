"""`model.py:net`: what is named, what is said of it when it is not there, and its weights."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from conch.packaging.errors import PackagingError
from conch.packaging.source.torch_module import load_module, load_object
from tests.packaging.conftest import Write

NET = """
    import torch
    class Net(torch.nn.Module):
        def __init__(self, width=3):
            super().__init__()
            self.layer = torch.nn.Linear(4, width)
            self.drop = torch.nn.Dropout()
        def forward(self, x):
            return self.drop(self.layer(x))
    net = Net(5)
    def made():
        return Net(7)
    def needs(width, depth, name="a"):
        return Net(width)
    def other():
        return {"a": 1}
    def fails():
        return Net("wide")
    number = 3
    scripted = torch.nn.Identity()
"""


def refused(reference: str, weights: Path | None = None) -> str:
    """What is said of it."""
    with pytest.raises(PackagingError) as error:
        load_module(reference, weights)
    return str(error.value)


@pytest.mark.parametrize(("name", "width"), [("net", 5), ("Net", 3), ("made", 7)])
def test_a_module_a_class_or_a_factory_is_named(write: Write, name: str, width: int) -> None:
    module = load_module(f"{write(NET)}:{name}", None)
    assert module.layer.weight.shape == (width, 4)
    assert not any(part.training for part in module.modules()), "in evaluation mode"


def test_a_factory_gives_the_same_module_each_time_and_leaves_the_random_numbers_alone(write: Write) -> None:
    reference = f"{write(NET)}:Net"
    before = torch.random.get_rng_state()
    first, second = load_module(reference, None), load_module(reference, None)
    assert torch.equal(first.layer.weight, second.layer.weight)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("model.py", "write it as model.py:net"),
        ("model.py:", "write it as model.py:net"),
        ("model.py:a.b", "write it as model.py:net"),
        ("nowhere.py:net", "nowhere.py is not there"),
        ("model.py:nett", "model.py has no 'nett'; its modules are Net, net, scripted"),
        ("model.py:needs", "needs arguments (width, depth); add a line"),
        ("model.py:needs", "`net = needs(width=…, depth=…)`"),
        ("model.py:other", "model.py:other returned a dict"),
        ("model.py:number", "model.py:number is a int"),
        ("model.py:fails", "model.py:fails() failed at model.py:5"),
    ],
)
def test_what_is_no_module_is_refused(write: Write, reference: str, why: str) -> None:
    write(NET)
    assert why in refused(reference)


def test_a_file_without_modules_says_so(write: Write) -> None:
    write("import torch\nfrom torch.nn import Linear\n")
    assert "has no 'net'; it has no torch module at all" in refused("model.py:net")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            "import torch\nimport layers_of_mine\n",
            "at model.py:2: ModuleNotFoundError: No module named 'layers_of_mine'",
        ),
        ("import torch\nnet = torch.nn.Linear(1\n", "at model.py:2: SyntaxError: '(' was never closed"),
        ("import torch\n\nnet = torch.nn.Linear('a', 2)\n", "at model.py:3: TypeError"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--what'])\n", "at model.py:2: SystemExit: 2"),
        ("import helper\n", "at helper.py:2: ZeroDivisionError"),
    ],
)
def test_an_error_in_the_users_file_is_told_with_its_line(write: Write, source: str, why: str) -> None:
    write("a = 0\nb = 1 / a\n", name="helper.py")
    write(source)
    said = refused("model.py:net")
    assert said.startswith("importing model.py failed")
    assert why in said


def test_what_the_users_code_prints_stays_out_of_stdout(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    load_module(f"{write('import torch; print(1); net = torch.nn.Identity()')}:net", None)
    assert capsys.readouterr() == ("", "1\n")


def test_the_file_may_import_those_beside_it_and_be_imported_by_them(write: Write) -> None:
    write("WIDTH = 6\n", name="sizes.py")
    write("import torch, sizes\nnet = torch.nn.Linear(4, sizes.WIDTH)\n")
    write("from model import net\ndef fit(module): ...\n", name="train.py")
    module = load_module("model.py:net", None)
    assert module.weight.shape == (6, 4)
    load_object("train.py:fit")
    assert sys.modules["train"].net is module


def test_another_folders_files_are_others(write: Write) -> None:
    write("")
    for folder, width in (("a", 2), ("b", 3)):
        Path(folder).mkdir()
        write(f"WIDTH = {width}\n", name=f"{folder}/sizes.py")
        write("import torch, sizes\nnet = torch.nn.Linear(4, sizes.WIDTH)\n", name=f"{folder}/model.py")
        assert load_module(f"{folder}/model.py:net", None).weight.shape == (width, 4)
    assert not [folder for folder in sys.path if folder == str(Path("a").resolve())]


def test_a_file_may_have_the_name_of_a_module_of_python(write: Write) -> None:
    import code

    load_module(f"{write('import torch; net = torch.nn.Identity()', name='code.py')}:net", None)
    assert sys.modules["code"] is code


def test_masks_of_unstructured_pruning_become_part_of_the_weights(write: Write) -> None:
    source = """
        import torch, torch.nn.utils.prune as prune
        net = torch.nn.Linear(4, 4)
        prune.l1_unstructured(net, "weight", amount=0.5)
    """
    module = load_module(f"{write(source)}:net", None)
    assert set(module.state_dict()) == {"weight", "bias"}
    assert int((module.weight == 0).sum()) == 8


def test_without_torch_there_is_one_message() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n    import conch.packaging.source.torch_module\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said.startswith("PackagingError torch is not installed")
    assert "pip install 'conch[torch]'" in said


def weights(**changes: Any) -> dict[str, torch.Tensor]:
    """Of the class Net."""
    whole = {"layer.weight": torch.ones(3, 4), "layer.bias": torch.arange(3.0)} | changes
    return {name: tensor for name, tensor in whole.items() if tensor is not None}


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net.pt"])
def test_weights_are_taken_from_either_form(write: Write, name: str) -> None:
    write(NET)
    save_file(weights(), name) if name.endswith(".safetensors") else torch.save(weights(), name)
    assert load_module("model.py:Net", Path(name)).layer.bias.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": weights(), "epoch": 3},
        {"model_state_dict": weights(), "loss": 0.1},
        {f"module.{name}": tensor for name, tensor in weights().items()},
        {f"_orig_mod.{name}": tensor.half() for name, tensor in weights().items()},
    ],
)
def test_weights_within_a_checkpoint_or_under_a_wrapper_are_found(write: Write, content: dict[str, Any]) -> None:
    write(NET)
    torch.save(content, "net.pth")
    module = load_module("model.py:Net", Path("net.pth"))
    assert module.layer.bias.tolist() == [0, 1, 2]
    assert module.layer.bias.dtype is torch.float32


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"layer.bias": None}, "it comes without layer.bias;"),
        ({"head.weight": torch.ones(1)}, "with head.weight, which the module does not have"),
        ({"layer.weight": torch.ones(9, 4)}, "with layer.weight (9, 4) instead of (3, 4)"),
        (
            {"layer.bias": None} | {f"extra.{i}": torch.ones(1) for i in range(9)},
            "without layer.bias; with extra.0, extra.1, extra.2, extra.3 and 5 more, which",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(write: Write, changes: dict[str, Any], why: str) -> None:
    write(NET)
    save_file(weights(**changes), "net.safetensors")
    said = refused("model.py:Net", Path("net.safetensors"))
    assert said.startswith("net.safetensors does not fit model.py:Net")
    assert why in said


def test_shared_weights_are_needed_once(write: Write) -> None:
    source = """
        import torch
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.words, self.out = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9, bias=False)
                self.out.weight = self.words.weight
            def forward(self, x):
                return self.out(self.words(x))
    """
    write(source)
    save_file({"words.weight": torch.ones(9, 4)}, "net.safetensors")
    assert bool((load_module("model.py:Net", Path("net.safetensors")).out.weight == 1).all())


def test_a_module_without_values_needs_weights(write: Write) -> None:
    write("import torch\ndef net():\n    with torch.device('meta'):\n        return torch.nn.Linear(2, 2)\n")
    assert "weight, bias of the module have no values yet" in refused("model.py:net")
    save_file({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, "net.safetensors")
    assert load_module("model.py:net", Path("net.safetensors")).bias.tolist() == [1, 1]
