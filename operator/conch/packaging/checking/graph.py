"""A model's configuration against its ONNX graph."""

from collections.abc import Iterator
from typing import Any

from conch.packaging.checking.finding import AGAIN, Finding
from conch.packaging.checking.repository import Repository
from conch.packaging.served import datatype
from conch.triton.errors import InvalidModelError
from conch.triton.layout import CONFIG
from conch.triton.onnx_config import onnx_config
from conch.triton.onnx_signature import read_signature


def check_graph(here: Repository, name: str, config: Any, place: str) -> Iterator[Finding]:
    """What of the inputs and outputs the graph at this place has otherwise."""
    file = here.root / place
    if not here.has(place):
        yield Finding(model=name, place=place, problem="it is missing", remedy=AGAIN)
        return
    try:
        size = int(config.max_batch_size)
        derived = onnx_config(read_signature(file), filename=file.name, max_batch_size=size)
    except (InvalidModelError, OSError) as error:
        yield Finding(model=name, place=place, problem=str(error), remedy=f"mend {name}/{CONFIG}, or {AGAIN}")
        return
    for kind, own, there in (("input", config.input, derived.input), ("output", config.output, derived.output)):
        graph = {each.name: each for each in there}
        named = {each.name: each for each in own}
        for tensor, entry in named.items():
            if tensor not in graph:
                problem = f"the graph {place} has no such {kind}; it has {', '.join(graph)}"
                yield _tensor(name, kind, tensor, problem)
            elif problem := _unlike(entry, graph[tensor]):
                yield _tensor(name, kind, tensor, f"{problem} in the graph {place}")
        if kind == "input" and named:
            for tensor in graph.keys() - named.keys():
                yield _tensor(name, kind, tensor, f"the graph {place} needs it, and {CONFIG} does not name it")


def _tensor(name: str, kind: str, tensor: str, problem: str) -> Finding:
    remedy = f"correct {name}/{CONFIG}, or {AGAIN}"
    return Finding(model=name, place=f"{name}, {kind} {tensor!r}", problem=problem, remedy=remedy)


def _unlike(entry: Any, derived: Any) -> str:
    if entry.data_type != derived.data_type:
        return f"it is {datatype(entry.data_type)} in {CONFIG} and {datatype(derived.data_type)}"
    own = tuple(entry.reshape.shape) if entry.HasField("reshape") else tuple(entry.dims)
    graph = tuple(derived.reshape.shape) if derived.HasField("reshape") else tuple(derived.dims)
    # What is open in the graph may be narrowed.
    if len(own) != len(graph) or any(there not in (-1, here) for here, there in zip(own, graph, strict=True)):
        return f"it has the dims {list(own)} in {CONFIG} and {list(graph)}"
    return ""
