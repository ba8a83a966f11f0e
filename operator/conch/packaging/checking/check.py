"""Checks a packaged repository, or any repository of Triton models, without a server: `conch package check`.

What is looked at: the layout, names and version folders, each configuration against its graph, labels, the golden set
replayed by onnxruntime within its own tolerances, the record's checksums, and whether the tree has a digest at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conch.packaging.checking.configuration import check_configuration, read_configuration
from conch.packaging.checking.finding import Finding
from conch.packaging.checking.golden import check_golden
from conch.packaging.checking.record import check_record
from conch.packaging.checking.repository import Repository, folders_of
from conch.packaging.progress import Progress, Silent
from conch.packaging.served import NotHere
from conch.store.digest import tree_digest
from conch.store.errors import StoreError
from conch.triton.layout import read_tree


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


def check(repository: Path) -> tuple[Finding, ...]:
    """What is wrong with a repository, or with one model's folder. Raises PackagingError where there is neither."""
    return look_over(repository).findings


def look_over(repository: Path, progress: Progress | None = None) -> Checked:
    """The same, with what was looked at."""
    progress = progress or Silent()
    root, folders = folders_of(repository)
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
    here = Repository.of(root, folders, is_whole=root == repository)
    for name in folders:
        if name not in here.files:
            not_replayed[name] = "it holds what is no plain file, or cannot be read, so nothing of it is opened"
            continue
        config, wrong = read_configuration(here, name)
        findings += wrong
        if config is not None:
            configs[name] = config
    for name, config in configs.items():
        progress.stage(f"check {name}")
        findings += check_configuration(here, name, config, folders)
        findings += check_record(here, name)
    replayed: dict[str, int] = {}
    for name, config in configs.items():
        progress.stage(f"replay the golden set of {name}")
        try:
            replayed[name], wrong = check_golden(here, name, config, configs)
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


def _strangers(root: Path, models: list[str]) -> Iterator[Finding]:
    for folder in read_tree(root).top_folders:
        if folder not in models:
            yield Finding(
                model="",
                place=f"{folder}/",
                problem="it is no model, and Triton takes every folder here for one and does not start",
                remedy="move it out of the repository",
            )
