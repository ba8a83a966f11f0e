"""Builds the cluster's programs from Go modules, once per machine, and says where they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster import cache
from tests.cluster.constants import GO_PROGRAM_BY_NAME, GO_PROGRAMS, REPOSITORY, GoProgram
from tests.cluster.errors import ClusterError
from tests.cluster.progress import say, step

MODULES = REPOSITORY / "tests" / "cluster" / "gomods"


def ensure(*names: str) -> Path:
    """A directory that holds at least the named programs (the cluster's without a name), built now if they are missing.

    The directory is the same for all checkouts whose modules and flags agree.
    """
    wanted = [program for program in GO_PROGRAMS if (program.name in names if names else not program.optional)]
    if unknown := set(names) - set(GO_PROGRAM_BY_NAME):
        raise ClusterError(
            f"The cluster has no program {', '.join(sorted(unknown))}.",
            todo=f"Use some of {', '.join(GO_PROGRAM_BY_NAME)}.",
        )
    missing = [program for program in wanted if not _cached(program).exists()]
    for index, program in enumerate(missing):
        rest = sum(later.build_seconds for later in missing[index + 1 :])
        _build(program, label=f"building {program.name} ({index + 1} of {len(missing)})", rest_seconds=rest)
    return _link_all()


def _key(program: GoProgram) -> str:
    module = MODULES / program.module
    sources = [*sorted(module.glob("*.go")), module / "go.mod", module / "go.sum"]
    contents = [source.read_bytes() if source.exists() else b"" for source in sources]
    flags = [program.ldflags, *([program.tags] if program.tags else [])]
    return cache.digest(program.package, *flags, *contents)


def _cached(program: GoProgram) -> Path:
    return cache.root() / "bin" / f"{program.name}-{_key(program)}"


def _link_all() -> Path:
    """A folder of links to exactly this checkout's versions, named after all of their keys."""
    present = [program for program in GO_PROGRAMS if _cached(program).exists()]
    folder = cache.root() / "bin" / f"set-{cache.digest(*(_key(program) for program in GO_PROGRAMS))}"
    folder.mkdir(parents=True, exist_ok=True)
    for program in present:
        link = folder / program.name
        if not link.exists():
            temporary = folder / f".{program.name}.{os.getpid()}"
            temporary.symlink_to(Path("..") / _cached(program).name)
            temporary.replace(link)
    return folder


def _build(program: GoProgram, *, label: str, rest_seconds: float) -> None:
    target = _cached(program)
    with cache.locked(cache.root() / "bin" / f".{program.name}.lock", what=f"builds {program.name}"):
        if target.exists():
            return
        go = shutil.which("go")
        if go is None:
            raise ClusterError(
                "The program 'go' is missing, and the cluster's parts are built with it.",
                todo="Install Go 1.26 or newer (https://go.dev/doc/install) and put it on PATH.",
            )
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{program.name}-") as scratch,
            step(label, expected_seconds=program.build_seconds, rest_seconds=rest_seconds),
        ):
            output = Path(scratch) / program.name
            flags = ["-trimpath", "-ldflags", program.ldflags, "-tags", program.tags]
            command = [go, "build", *flags, "-o", str(output), program.package]
            # -mod=readonly: a build never edits the committed go.mod and go.sum. No VCS stamp: the same commit of
            # another checkout must give the same binary.
            environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
            result = subprocess.run(
                command, cwd=MODULES / program.module, env=environment, capture_output=True, text=True, check=False
            )
            if result.returncode != 0:
                tail = "\n  ".join(result.stderr.strip().splitlines()[-12:])
                raise ClusterError(
                    f"Building {program.name} failed:\n  {tail}",
                    todo="Check that the Go module proxy is reachable and that the disk is not full, then run again.",
                )
            output.replace(target)
    say(f"  {program.name}: {target.stat().st_size // 1_000_000} MB in the cache")
