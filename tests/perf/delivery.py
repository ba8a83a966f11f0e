"""How fast a model comes from a store to the pod's disk, verified, and what that costs the agent.

References in the same run: s5cmd and `aws s3 cp`, which write what they get and hash nothing; hashlib for the digest.
"""

import asyncio
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from conch.api.agent_report import AgentPhase
from conch.api.assignment import Assignment
from conch.api.model import ModelSource, SecretReference
from conch.api.source import ClaimSource
from conch.api.source_policy import SourcePolicy
from conch.store.sources.claim import link_claim
from conch.store.threads import never_interrupted
from conch.store.transfer import Progress
from tests.cluster import binaries, cache
from tests.cluster.progress import step
from tests.contract.processes import Agent, Triton
from tests.stores import tls as certificates
from tests.stores.s3 import S3

AWSCLI: Final = "awscli==1.46.3"
LARGE: Final = {f"weights-{number:02}.bin": 32 << 20 for number in range(64)}
SMALL: Final = {f"{number // 100:03}/part-{number:05}.bin": 1000 for number in range(10_000)}
ROUNDS: Final = 3
POLICY: Final = SourcePolicy(http_hosts=("127.0.0.1",), private_hosts=("127.0.0.1",))

console = Console()
app = typer.Typer(add_completion=False)
Clients = Mapping[str, Callable[[S3, str, Path], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One fetch by an agent."""

    seconds: float
    resident_mib: float
    """The most that the agent's process held at any time."""


@app.command()
def main(
    out: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path(".cluster/delivery.json"),
) -> None:
    """Measure deliveries from a local S3 server. Example: python -m tests.perf.delivery"""
    figures: dict[str, Any] = {}
    table = Table("what", "conch s", "s5cmd s", "aws s", "speed of the faster", "agent MiB", title="From S3 to disk")
    with tempfile.TemporaryDirectory(prefix="conch-delivery-") as temporary:
        folder = Path(temporary)
        secured = certificates.issue(folder / "tls", "127.0.0.1")
        runs = (
            ("2 GiB in 64 files, https", LARGE, secured),
            ("2 GiB in 64 files, http", LARGE, None),
            ("10,000 files of 1 kB, http", SMALL, None),
        )
        for what, files, tls in runs:
            with _in_memory() as server, S3(server, tls=tls) as store:
                _upload(store, "model", files, folder)
                figures[what] = _compare(store, "model", folder, table, what)
        figures["digest"] = _digest(folder)
    console.print(table)
    digest = figures["digest"]
    console.print(
        f"Digest of a claim in place: {digest['tree_mb_per_second']:,.0f} MB/s, hashlib alone "
        f"{digest['hashlib_mb_per_second']:,.0f} MB/s ({digest['ratio']:.2f})"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1))


def _upload(store: S3, prefix: str, files: Mapping[str, int], folder: Path) -> None:
    block = os.urandom(max(files.values()) + len(files))
    with step(f"uploading {len(files)} files", expected_seconds=20), _fresh(folder / "upload") as source:
        for number, (name, size) in enumerate(files.items()):
            path = source / name
            path.parent.mkdir(exist_ok=True)
            # No two files alike: a store might keep them once.
            path.write_bytes(memoryview(block)[number : number + size])
        _timed([*_s5cmd_command(store), "cp", f"{source}/", f"{store.uri(prefix)}/"], store)


def _compare(store: S3, prefix: str, folder: Path, table: Table, what: str) -> dict[str, Any]:
    """Rounds of each client in turn, so that all of them meet the same machine; the medians count."""
    clients: Clients = {"s5cmd": _s5cmd, "aws": _aws}
    seconds: dict[str, list[float]] = {name: [] for name in ("conch", *clients)}
    resident = 0.0
    for _ in range(ROUNDS):
        for name, client in clients.items():
            with _fresh(folder / "reference") as target:
                seconds[name].append(client(store, prefix, target))
        with _fresh(folder / "agent") as target:
            fetched = asyncio.run(_conch(store, prefix, target))
        seconds["conch"].append(fetched.seconds)
        resident = max(resident, fetched.resident_mib)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    ratio = min(medians[name] for name in clients) / medians["conch"]
    cells = [f"{medians[name]:.2f}" for name in ("conch", *clients)]
    table.add_row(what, *cells, f"{ratio:.2f}", f"{resident:.0f}")
    return {"seconds": seconds, "speed_ratio": ratio, "agent_mib": resident}


async def _conch(store: S3, prefix: str, folder: Path) -> Fetched:
    """The agent's own process, as in a pod; there is no Triton, and nothing is loaded."""
    agent = Agent(folder)
    agent.credentials.mkdir()
    for name, value in store.credentials.items():
        (agent.credentials / name).write_text(value)
    source = ModelSource(
        uri=store.uri(prefix), endpoint=store.endpoint, credentials_secret_ref=SecretReference(name="store")
    )
    agent.start(Triton(folder, agent.volume / "repository"))
    try:
        agent.assign(Assignment(revision="r", name="m", version=1, source=source, source_policy=POLICY))
        await agent.until_phase(AgentPhase.FETCHED, 600)
        fetch = next(event for event in agent.events() if event.get("step") == "Fetch")
        return Fetched(seconds=float(fetch["seconds"]), resident_mib=agent.resident_mib(peak=True))
    finally:
        agent.stop()


def _s5cmd(store: S3, prefix: str, target: Path) -> float:
    return _timed([*_s5cmd_command(store), "cp", f"{store.uri(prefix)}/*", f"{target}/"], store)


def _s5cmd_command(store: S3) -> list[str]:
    verify = ["--no-verify-ssl"] if store.tls else []
    return [str(binaries.ensure("s5cmd") / "s5cmd"), "--endpoint-url", store.endpoint, *verify, "--log", "error"]


def _aws(store: S3, prefix: str, target: Path) -> float:
    verify = ["--no-verify-ssl"] if store.tls else []
    command = [str(_aws_program()), "--endpoint-url", store.endpoint, *verify, "s3", "cp", "--recursive", "--quiet"]
    return _timed([*command, store.uri(prefix), str(target)], store)


def _timed(command: list[str], store: S3) -> float:
    secret = {name: value for name, value in store.credentials.items() if name.startswith("AWS_")}
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "AWS_DEFAULT_REGION": store.region, **secret}
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr[-500:]}")
    return seconds


def _aws_program() -> Path:
    """`aws` in an environment of its own in the cache: its dependencies would hold ours back."""
    folder = cache.root() / "awscli" / AWSCLI.partition("==")[2]
    program = folder / "bin" / "aws"
    with cache.locked(cache.root() / "awscli" / ".lock", what="installs the aws command"):
        if not program.exists():
            uv = Path(sys.executable).with_name("uv")
            with step("installing awscli", expected_seconds=20):
                subprocess.run([uv, "venv", "--quiet", "--clear", str(folder)], check=True)
                subprocess.run(
                    [uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), AWSCLI], check=True
                )
    return program


def _digest(folder: Path) -> dict[str, float]:
    """A claim's files are hashed where they lie, on one core."""
    mount, total = folder / "claim", 1 << 30
    (mount / "model").mkdir(parents=True)
    block = os.urandom(32 << 20)
    for number in range(total // len(block)):
        (mount / "model" / f"{number:02}").write_bytes(block)
    rates: dict[str, list[float]] = {"tree": [], "hashlib": []}
    for number in range(ROUNDS):
        started = time.monotonic()
        alone = hashlib.sha256()
        for _ in range(total // len(block)):
            alone.update(block)
        rates["hashlib"].append(total / (time.monotonic() - started) / 1e6)
        source = ClaimSource(claim="claim", path="model")
        started = time.monotonic()
        link_claim(source, mount, folder / f"t{number}", progress=Progress(), checkpoint=never_interrupted)
        rates["tree"].append(total / (time.monotonic() - started) / 1e6)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    return {
        "tree_mb_per_second": medians["tree"],
        "hashlib_mb_per_second": medians["hashlib"],
        "ratio": medians["tree"] / medians["hashlib"],
    }


@contextmanager
def _in_memory() -> Iterator[Path]:
    """A folder for the server, whose disk is not what is measured."""
    with tempfile.TemporaryDirectory(prefix="conch-store-", dir="/dev/shm") as folder:
        yield Path(folder)


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    app()
