"""A model's configuration against its folder: names, versions, steps, labels."""

from collections.abc import Iterator
from typing import Any

from conch.packaging.checking.finding import AGAIN, Finding
from conch.packaging.checking.graph import check_graph
from conch.packaging.checking.repository import Repository
from conch.packaging.errors import PackagingError
from conch.packaging.requirements import check_name
from conch.packaging.served import backend_of, is_datatype
from conch.triton.config_pbtxt import is_ensemble, parse_config
from conch.triton.errors import InvalidModelError
from conch.triton.layout import CONFIG, DEFAULT_ONNX, read_tree


def read_configuration(here: Repository, name: str) -> tuple[Any | None, list[Finding]]:
    """A model's configuration, None where it cannot be read, and what is wrong with it by itself."""
    place = f"{name}/{CONFIG}"
    try:
        check_name(name, 1)
    except PackagingError as error:
        return None, [Finding(model=name, place=f"{name}/", problem=str(error), remedy="rename the folder")]
    try:
        config = parse_config(here.read(place).decode())
    except FileNotFoundError:
        remedy = f"write one, or {AGAIN}"
        return None, [Finding(model=name, place=place, problem="it is missing", remedy=remedy)]
    except (InvalidModelError, UnicodeDecodeError, OSError) as error:
        words = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        return None, [Finding(model=name, place=place, problem=words, remedy=f"mend it, or {AGAIN}")]
    if unknown := next((each for each in (*config.input, *config.output) if not is_datatype(each.data_type)), None):
        words = f"{unknown.name!r} has the data_type {unknown.data_type}, which is none of Triton's"
        return None, [Finding(model=name, place=place, problem=words, remedy=f"mend it, or {AGAIN}")]
    return config, []


def check_configuration(here: Repository, name: str, config: Any, models: list[str]) -> Iterator[Finding]:
    """What of a model's folder is not as its configuration says; `models` are those of the repository."""

    def wrong(place: str, problem: str, remedy: str) -> Finding:
        return Finding(model=name, place=place, problem=problem, remedy=remedy)

    place = f"{name}/{CONFIG}"
    if config.name and config.name != name:
        yield wrong(place, f"it names the model {config.name!r}, and its folder is {name!r}", "make them equal")
    if len(config.model_warmup):
        yield wrong(
            place,
            "it has model_warmup, and a warm-up request that fails kills the whole server",
            "remove it: the golden set is replayed after every load, which warms up too",
        )
    tree = read_tree(here.root / name)
    if not tree.versions:
        yield wrong(f"{name}/", "it has no version folder, so Triton does not serve it", "make one, such as 1/")
    for version in tree.versions:
        if not tree.below(str(version)).files:
            yield wrong(
                f"{name}/{version}/",
                "it is empty, and empty folders are lost in git, archives and object stores",
                "put an empty file .keep into it" if is_ensemble(config) else f"put the model into it: {AGAIN}",
            )
        elif backend_of(config) == "onnxruntime":
            file = config.default_model_filename or DEFAULT_ONNX
            yield from check_graph(here, name, config, f"{name}/{version}/{file}")
    for step in config.ensemble_scheduling.step:
        if step.model_name not in models:
            yield wrong(place, f"its step {step.model_name!r} is not in the repository", f"{AGAIN}, whole")
    yield from _labels(here, name, config)


def _labels(here: Repository, name: str, config: Any) -> Iterator[Finding]:
    for output in config.output:
        if not output.label_filename:
            continue
        place = f"{name}/{output.label_filename}"
        try:
            labels = here.read(place).decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            words = error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"
            yield Finding(
                model=name,
                place=place,
                problem=f"output {output.name!r} names it: {words}",
                remedy=f"add it, or {AGAIN}",
            )
            continue
        count = output.dims[-1] if output.dims else -1
        if count != -1 and len(labels) != count:
            yield Finding(
                model=name,
                place=place,
                problem=f"it has {len(labels)} labels, and output {output.name!r} has {count} classes",
                remedy="write one label a line, in the order of the classes",
            )
