"""What `conch package` writes, on the real Triton: loaded as it is, complete, and answering as recorded.

The server is the real one; its onnxruntime backend is the stand-in's (tests/images/triton), which cannot complete a
configuration by itself. So the reading of the graph is left to onnxruntime, in a model of the Python backend, and the
completion to Triton. NVIDIA's own backend was asked once: what it completes is in the design, 11-packaging.md.
"""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton_grpc
from onnx import ModelProto, TensorProto, helper

from conch.api.model import ModelFormat
from conch.packaging.checking.check import look_over
from conch.packaging.packaging import Package, package
from conch.packaging.request import Head, HeldOut, Optimise, Request
from conch.packaging.tensors import Tensors
from conch.triton.client import TritonClient
from conch.triton.comparison import summary
from conch.triton.config_pbtxt import parse_config
from conch.triton.errors import TritonRefusedError, TritonUnavailableError
from conch.triton.golden_set import read_golden_set
from conch.triton.layout import find_model, read_tree
from conch.triton.replay import replay
from tests.contract.processes import ADMIN_KEY, Triton
from tests.support.async_waiting import until
from tests.support.packaging_graphs import linear, made, many_types, samples, value, wide
from tests.support.text_models import LABELS, text_classifier, word_tokenizer

pytestmark = pytest.mark.contract

BATCH = 8
READS_THE_GRAPH = """
import json, os
import onnxruntime

TYPES = {"float": "FP32", "float16": "FP16", "string": "STRING", "double": "FP64"}


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        session = onnxruntime.InferenceSession(os.path.join(os.path.dirname(__file__), "graph"))
        tensors = [*session.get_inputs(), *session.get_outputs()]
        batches = all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in tensors)
        for tensors, add in ((session.get_inputs(), config.add_input), (session.get_outputs(), config.add_output)):
            for tensor in tensors:
                kind = tensor.type[len("tensor("):-1]
                dims = [each if isinstance(each, int) else -1 for each in tensor.shape][1 if batches else 0:]
                add({"name": tensor.name, "data_type": "TYPE_" + TYPES.get(kind, kind.upper()), "dims": dims})
        config.set_max_batch_size(BATCH if batches else 0)
        if batches:
            config.set_dynamic_batching()
        return config

    def execute(self, requests):
        raise NotImplementedError
""".replace("BATCH", str(BATCH))


class Server:
    """Triton on a repository, and its client."""

    def __init__(self, triton: Triton, client: TritonClient, repository: Path) -> None:
        self.triton, self.client, self.repository = triton, client, repository

    async def load(self, name: str) -> Any:
        """Load a model; its configuration as Triton completes it."""
        await self.client.load(name, timeout_seconds=60)
        return await self.client.config(name, None)

    async def replayed(self, made: Package) -> tuple[int, int, str]:
        """(samples, those that differ, in words): what the agent does after every load."""
        model = await self.client.signature(made.name, made.version)
        content = (self.repository / made.name / "golden.json").read_bytes()
        read = read_golden_set(content, model)
        differences = await replay(self.client, made.name, made.version, model=model, samples=read)
        return (len(read), *summary(len(read), differences))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    repository = tmp_path / "repository"
    repository.mkdir()
    triton = Triton(tmp_path, repository)
    triton.start()
    try:
        async with TritonClient(f"127.0.0.1:{triton.grpc}", ADMIN_KEY) as client:

            async def live() -> bool | None:
                return await client.live() or None

            await until("Triton", live)
            yield Server(triton, client, repository)
    finally:
        triton.stop(9)


def packaged(server: Server, graph: ModelProto, example: Tensors, name: str = "net", **changes: Any) -> Package:
    """Into the served repository."""
    source = server.repository.parent / f"{name}.onnx"
    onnx.save(graph, source)
    told: dict[str, Any] = {"example": example, "max_batch_size": BATCH, "golden_count": 20}
    return package(Request(source=str(source), out=server.repository, name=name, **(told | changes)))


def both_ways() -> ModelProto:
    """Texts, halves, doubles and bytes, in and out."""
    kinds = {"t": TensorProto.STRING, "h": TensorProto.FLOAT16, "d": TensorProto.DOUBLE, "b": TensorProto.UINT8}
    return made(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds],
        [value(name, "batch", 2, kind=kind) for name, kind in kinds.items()],
        [value(f"{name}_out", "batch", 2, kind=kind) for name, kind in kinds.items()],
    )


def open_axes() -> ModelProto:
    return made(
        [
            helper.make_node("Add", ["x", "y"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
        ],
        [value("x", "batch", "seq", 2), value("y", "batch", "seq", 2)],
        [value("sum", "batch", "seq", 2), value("whole", "batch", "seq", 2, kind=TensorProto.INT64)],
    )


def both_ways_example() -> Tensors:
    return {
        "t": np.array([["ß", "b"], ["", "d"]]),
        "h": np.array([[0.5, 65504], [1e-7, -1]], np.float16),
        "d": np.array([[np.pi, np.nan], [np.inf, 0]]),
        "b": np.array([[0, 255], [1, 2]], np.uint8),
    }


GRAPHS: dict[str, tuple[Callable[[], ModelProto], Callable[[], Tensors]]] = {
    "linear": (linear, lambda: {"x": samples(20)}),
    "wide": (wide, lambda: {"x": samples(20, 64)}),
    "fixed": (lambda: linear(batch=2), lambda: {"x": samples(2)}),
    "types": (both_ways, both_ways_example),
    "open": (open_axes, lambda: {"x": samples(30, 2).reshape(6, 5, 2), "y": samples(30, 2, 3).reshape(6, 5, 2)}),
}


async def test_the_configuration_is_the_one_that_triton_completes(server: Server) -> None:
    for name, (graph, example) in GRAPHS.items():
        packaged(server, graph(), example(), name)
        folder = server.repository / f"{name}_read" / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(READS_THE_GRAPH)
        # By another name: Triton looks at it to tell the backend.
        shutil.copy(server.repository / name / "1" / "model.onnx", folder / "graph")
        written, completed = await server.load(name), await server.load(f"{name}_read")
        for field in ("max_batch_size", "input", "output", "dynamic_batching", "version_policy", "optimization"):
            assert getattr(written, field) == getattr(completed, field), (name, field)
        assert written.HasField("dynamic_batching") == completed.HasField("dynamic_batching")


async def test_triton_adds_only_its_defaults_to_it(server: Server) -> None:
    packaged(server, linear(), {"x": samples(20)})
    ours = parse_config((server.repository / "net" / "config.pbtxt").read_text())
    loaded = await server.load("net")
    for field, content in ours.ListFields():
        if field.name != "dynamic_batching":
            assert getattr(loaded, field.name) == content, field.name
    assert list(loaded.dynamic_batching.preferred_batch_size) == [BATCH]
    added = {field.name for field, _ in loaded.ListFields()} - {field.name for field, _ in ours.ListFields()}
    assert added == {"version_policy", "optimization", "instance_group", "platform", "runtime"}


async def test_it_answers_as_recorded_alone_and_in_full_batches(server: Server) -> None:
    for name, (graph, example) in GRAPHS.items():
        made = packaged(server, graph(), example(), name)
        await server.load(name)
        assert await server.replayed(made) == (made.golden_count, 0, ""), name
        expected = {1, min(made.golden_count, BATCH) if made.config.max_batch_size else 1}

        async def counted(name: str = name, expected: set[int] = expected) -> bool | None:
            sizes = {each.size for each in (await server.client.statistics(name, 1)).batches}
            return expected <= sizes or None

        await until(f"{name} in batches of {expected}", counted)  # counted after the answer is sent


async def test_numbers_per_sample_and_integers(server: Server) -> None:
    example: Tensors = {"ids": np.arange(60).reshape(20, 3) % 10, "x": samples(20, 2)}
    made = packaged(server, many_types(), example)
    await server.load("net")
    assert await server.replayed(made) == (20, 0, "")


async def test_an_optimised_model_answers_as_recorded(server: Server) -> None:
    x = samples(64, 64)
    data = HeldOut(inputs={"x": x}, target=np.zeros(64, np.int64))
    for name, wishes in (("half", Optimise(fp16=True, max_drop=1)), ("whole", Optimise(int8=True, max_drop=1))):
        made = packaged(server, wide(), {"x": x}, name, held_out=data, optimise=wishes)
        await server.load(name)
        samples_there, wrong, words = await server.replayed(made)
        assert (samples_there, wrong) == (made.golden_count, 0), words


async def test_labels_in_the_graph_and_labels_by_the_classification_extension(server: Server) -> None:
    x = samples(20)
    inside = packaged(server, linear(), {"x": x}, "inside", labels=("a", "b", "c"), head=Head.SOFTMAX)
    packaged(server, linear(), {"x": x}, "beside", labels=("a", "b", "c"))
    await server.load("inside")
    await server.load("beside")
    assert await server.replayed(inside) == (20, 0, "")
    client = triton_grpc.InferenceServerClient(f"127.0.0.1:{server.triton.grpc}")
    try:
        tensor = triton_grpc.InferInput("x", [BATCH, 4], "FP32")
        tensor.set_data_from_numpy(x[:BATCH])
        labels = client.infer("inside", [tensor]).as_numpy("LABEL").ravel()
        asked = triton_grpc.InferRequestedOutput("logits", class_count=2)
        classes = client.infer("beside", [tensor], outputs=[asked]).as_numpy("logits")
    finally:
        client.close()
    assert classes.shape == (BATCH, 2)
    assert [each[0].split(b":")[2] for each in classes] == labels.tolist()
    assert len({*labels.tolist()}) > 1


async def test_texts(server: Server) -> None:
    word_tokenizer().save(str(server.repository.parent / "tokenizer.json"))
    texts = np.array(["good day", "a bad day", "odd", "very " * 40, "ödd", "quite a good day"])
    made = packaged(
        server,
        text_classifier(),
        {"text": texts},
        "mood",
        labels=LABELS,
        head=Head.SOFTMAX,
        tokenizer=server.repository.parent / "tokenizer.json",
        max_length=40,
    )
    assert look_over(server.repository).findings == ()
    await server.load("mood")
    assert await server.replayed(made) == (6, 0, "")


async def test_a_version_folder_that_would_be_empty(server: Server) -> None:
    """Without it Triton does not know the model; in an archive or a bucket an empty one is lost."""
    word_tokenizer().save(str(server.repository.parent / "tokenizer.json"))
    packaged(
        server,
        text_classifier(),
        {"text": np.array(["good"])},
        "mood",
        tokenizer=server.repository.parent / "tokenizer.json",
        max_length=40,
    )
    assert {each.name for each in await server.client.index()} >= {"mood", "mood_tokenize", "mood_model"}
    assert find_model(read_tree(server.repository), name="mood", format=ModelFormat.REPOSITORY).tree.versions == [1]
    shutil.rmtree(server.repository / "mood" / "1")
    with pytest.raises(TritonRefusedError, match="at least one version must be available"):
        await server.load("mood")


async def test_a_warm_up_that_kills_the_server_is_never_written(server: Server) -> None:
    made = packaged(server, many_types(), {"ids": np.arange(20).reshape(10, 2) % 10, "x": samples(10, 2)})
    config = await server.load("net")
    assert not config.model_warmup
    assert await server.replayed(made) == (10, 0, ""), "which warms it up"

    file = made.path / "config.pbtxt"
    warm_up = """
        model_warmup {
            name: "random" batch_size: 1
            inputs { key: "ids" value { data_type: TYPE_INT64 dims: 1 random_data: true } }
            inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 random_data: true } }
        }"""
    file.write_text(file.read_text() + warm_up)
    assert "model_warmup" in look_over(server.repository).findings[0].problem
    # Refused, or the whole server is gone: that depends on how many instances are stopped while they warm up.
    with pytest.raises((TritonRefusedError, TritonUnavailableError)):
        await server.client.load("net", timeout_seconds=60)


async def test_a_second_version_beside_the_first(server: Server) -> None:
    packaged(server, linear(), {"x": samples(20)})
    made = packaged(server, linear(), {"x": samples(20, seed=5)}, version=2)
    await server.load("net")
    assert await server.replayed(made) == (20, 0, "")
