"""Checks a packaged repository, or any repository of Triton models, without a server: `conch package check`.

What is looked at: the layout, names and version folders, each configuration against its graph, labels, the golden set
replayed by onnxruntime within its own tolerances, the record's checksums, and whether the tree has a digest at all.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conch.packaging.errors import PackagingError
from conch.packaging.output.record import RECORD_FILE
from conch.packaging.progress import Progress, Silent
from conch.packaging.replay import replay
from conch.packaging.requirements import check_name
from conch.packaging.served import NotHere, answerer, backend_of, datatype, is_datatype, latest, signature
from conch.store.digest import file_sha256, regular_files, tree_digest
from conch.store.errors import StoreError
from conch.triton.comparison import summary
from conch.triton.config_pbtxt import is_ensemble, parse_config
from conch.triton.errors import InvalidModelError
from conch.triton.golden_set import FILE_BYTES_MOST, GoldenSetError, read_golden_set
from conch.triton.layout import CONFIG, DEFAULT_ONNX, GOLDEN_SET, read_tree
from conch.triton.onnx_config import onnx_config
from conch.triton.onnx_signature import read_signature

_AGAIN: Final = "package the model again"
_TEXT_BYTES_MOST: Final = 16 << 20
"""Of configurations, labels and records: whoever wrote them, they are read whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong."""

    model: str
    """Its name; empty for what belongs to none."""
    place: str
    """The file, by its path in the repository, or the tensor."""
    problem: str
    remedy: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.place}: {self.problem}; {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was looked at, and what came of it."""

    findings: tuple[Finding, ...]
    models: tuple[str, ...]
    replayed: dict[str, int] = field(default_factory=dict)
    """Samples of the golden sets that were replayed, by model."""
    not_replayed: dict[str, str] = field(default_factory=dict)
    """Why not, by model: it has no golden set, or runs only in Triton."""
    pushed: Path
    """What one would push: the repository, or the folder of the only model in it."""
    digest: str | None = None
    """Of that; None where it can have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repository:
    """What may be opened: plain files of its models, so that no name in a file leads to anything else."""

    root: Path
    files: Mapping[str, frozenset[str]]
    """By model; none of one that holds links or special files."""
    is_whole: bool
    """Whether all of it is looked at, not one model's folder."""

    @classmethod
    def of(cls, root: Path, models: list[str], *, is_whole: bool) -> "_Repository":
        files: dict[str, frozenset[str]] = {}
        for name in models:
            folder = root / name
            with suppress(StoreError, OSError):  # the digest's own finding
                files[name] = frozenset(each.relative_to(folder).as_posix() for each in regular_files(folder))
        return cls(root=root, files=files, is_whole=is_whole)

    def has(self, place: str) -> bool:
        """Whether there is such a file, by its path in the repository."""
        model, _, file = place.partition("/")
        return file in self.files.get(model, frozenset())

    def read(self, place: str, most: int = _TEXT_BYTES_MOST) -> bytes:
        """A file; raises OSError where there is none, or a larger one."""
        if not self.has(place):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
        with (self.root / place).open("rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise OSError(errno.EFBIG, f"it has more than {most >> 20} MiB", place)
        return content


def check(repository: Path) -> tuple[Finding, ...]:
    """What is wrong with a repository, or with one model's folder. Raises PackagingError where there is neither."""
    return look_over(repository).findings


def look_over(repository: Path, progress: Progress | None = None) -> Checked:
    """The same, with what was looked at."""
    progress = progress or Silent()
    root, folders = _folders(repository)
    findings: list[Finding] = []
    digest = None
    progress.stage("read every file")
    pushed = root / folders[0] if len(folders) == 1 else repository
    try:
        digest = tree_digest(pushed)
    except (StoreError, OSError) as error:
        words = error.message if isinstance(error, StoreError) else f"it cannot be read: {error}"
        findings.append(Finding(model="", place=str(pushed), problem=words, remedy="it has no digest before that"))
    if root == repository:
        findings += _strangers(root, folders)
    configs: dict[str, Any] = {}
    not_replayed: dict[str, str] = {}
    here = _Repository.of(root, folders, is_whole=root == repository)
    for name in folders:
        if name not in here.files:
            not_replayed[name] = "it holds what is no plain file, or cannot be read, so nothing of it is opened"
            continue
        config, wrong = _configuration(here, name)
        findings += wrong
        if config is not None:
            configs[name] = config
    for name, config in configs.items():
        progress.stage(f"check {name}")
        findings += _model(here, name, config, folders)
        findings += _record(here, name)
    replayed: dict[str, int] = {}
    for name, config in configs.items():
        progress.stage(f"replay the golden set of {name}")
        try:
            replayed[name], wrong = _golden(here, name, config, configs)
            findings += wrong
        except NotHere as reason:
            not_replayed[name] = str(reason)
    return Checked(
        findings=tuple(dict.fromkeys(findings)),
        models=tuple(folders),
        replayed=replayed,
        not_replayed=not_replayed,
        pushed=pushed,
        digest=digest,
    )


def _folders(repository: Path) -> tuple[Path, list[str]]:
    """(the repository, the models in it); of a model's own folder the folder above it. Raises PackagingError."""
    if not repository.is_dir():
        raise PackagingError(f"{repository} is no folder; give a repository, or the folder of one of its models")
    tree = read_tree(repository)
    if tree.is_model:
        folder = repository if repository.name not in ("", "..") else repository.resolve()
        return folder.parent, [folder.name]
    folders = [name for name in tree.top_folders if tree.below(name).is_model]
    if not folders:
        raise PackagingError(
            f"{repository} holds no model: no folder in it has a {CONFIG} or a version folder; give a repository, or "
            "the folder of one of its models"
        )
    return repository, folders


def _strangers(root: Path, models: list[str]) -> Iterator[Finding]:
    for folder in read_tree(root).top_folders:
        if folder not in models:
            yield Finding(
                model="",
                place=f"{folder}/",
                problem="it is no model, and Triton takes every folder here for one and does not start",
                remedy="move it out of the repository",
            )


def _configuration(here: _Repository, name: str) -> tuple[Any | None, list[Finding]]:
    place = f"{name}/{CONFIG}"
    try:
        check_name(name, 1)
    except PackagingError as error:
        return None, [Finding(model=name, place=f"{name}/", problem=str(error), remedy="rename the folder")]
    try:
        config = parse_config(here.read(place).decode())
    except FileNotFoundError:
        remedy = f"write one, or {_AGAIN}"
        return None, [Finding(model=name, place=place, problem="it is missing", remedy=remedy)]
    except (InvalidModelError, UnicodeDecodeError, OSError) as error:
        words = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        return None, [Finding(model=name, place=place, problem=words, remedy=f"mend it, or {_AGAIN}")]
    if unknown := next((each for each in (*config.input, *config.output) if not is_datatype(each.data_type)), None):
        words = f"{unknown.name!r} has the data_type {unknown.data_type}, which is none of Triton's"
        return None, [Finding(model=name, place=place, problem=words, remedy=f"mend it, or {_AGAIN}")]
    return config, []


def _model(here: _Repository, name: str, config: Any, models: list[str]) -> Iterator[Finding]:
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
                "put an empty file .keep into it" if is_ensemble(config) else f"put the model into it: {_AGAIN}",
            )
        elif backend_of(config) == "onnxruntime":
            file = config.default_model_filename or DEFAULT_ONNX
            yield from _graph(here, name, config, f"{name}/{version}/{file}")
    for step in config.ensemble_scheduling.step:
        if step.model_name not in models:
            yield wrong(place, f"its step {step.model_name!r} is not in the repository", f"{_AGAIN}, whole")
    yield from _labels(here, name, config)


def _graph(here: _Repository, name: str, config: Any, place: str) -> Iterator[Finding]:
    file = here.root / place
    if not here.has(place):
        yield Finding(model=name, place=place, problem="it is missing", remedy=_AGAIN)
        return
    try:
        size = int(config.max_batch_size)
        derived = onnx_config(read_signature(file), filename=file.name, max_batch_size=size)
    except (InvalidModelError, OSError) as error:
        yield Finding(model=name, place=place, problem=str(error), remedy=f"mend {name}/{CONFIG}, or {_AGAIN}")
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
    remedy = f"correct {name}/{CONFIG}, or {_AGAIN}"
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


def _labels(here: _Repository, name: str, config: Any) -> Iterator[Finding]:
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
                remedy=f"add it, or {_AGAIN}",
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


def _record(here: _Repository, name: str) -> Iterator[Finding]:
    place = f"{name}/{RECORD_FILE}"
    if not here.has(place):
        return
    try:
        told = json.loads(here.read(place))
        files = {str(path): str(digest) for path, digest in told["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        yield Finding(model=name, place=place, problem=f"it is no record of packaging ({error})", remedy=_AGAIN)
        return
    for path, digest in files.items():
        if not here.is_whole and path.partition("/")[0] != name:
            continue  # of one model's own folder, the others of an ensemble are not there to be looked at
        if not here.has(path):
            yield Finding(model=name, place=path, problem=f"{place} names it, and it is missing", remedy=_AGAIN)
        elif file_sha256(here.root / path) != digest:
            yield Finding(
                model=name,
                place=path,
                problem=f"it is not the file that was packaged: {place} has another sha256 of it",
                remedy=_AGAIN,
            )


def _golden(here: _Repository, name: str, config: Any, configs: Mapping[str, Any]) -> tuple[int, list[Finding]]:
    """How many samples were replayed, and what differs. Raises NotHere where that cannot be done here."""
    place = f"{name}/{GOLDEN_SET}"
    if not here.has(place):
        raise NotHere("it has no golden set")
    model = signature(config)
    try:
        samples = read_golden_set(here.read(place, FILE_BYTES_MOST), model)
    except (GoldenSetError, OSError) as error:
        return 0, [Finding(model=name, place=place, problem=str(error), remedy=_AGAIN)]
    try:
        # The set is of the version that was packaged last.
        version = _recorded_version(here, name) or latest(here.root / name, -1)
        answer = answerer(configs, here.root, name, version)
    except PackagingError as error:
        return 0, [Finding(model=name, place=f"{name}/", problem=str(error), remedy=_AGAIN)]
    count, words = summary(len(samples), replay(answer, model=model, samples=samples))
    if not count:
        return len(samples), []
    problem = f"version {version} does not answer as recorded: {words}"
    return len(samples), [
        Finding(model=name, place=place, problem=problem, remedy="do not serve it: the model or the set was changed")
    ]


def _recorded_version(here: _Repository, name: str) -> int | None:
    try:
        told = json.loads(here.read(f"{name}/{RECORD_FILE}"))["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return told if type(told) is int and told in read_tree(here.root / name).versions else None
