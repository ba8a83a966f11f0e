"""`make demo`: from nothing to a served model, on a real cluster, in front of your eyes."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel

from tests.cluster.client import Cluster, existing
from tests.demo.live_view import watch_until
from tests.demo.model import NAME, NAMESPACE, start
from tests.demo.rollouts import Rollouts, begin_load
from tests.demo.scaled import SCALED
from tests.demo.scaling import Scaling
from tests.demo.service import service_address
from tests.support.inference import digits, infer
from tests.support.installation import ROOT, install

console = Console(highlight=False)
app = typer.Typer(add_completion=False)


@contextmanager
def step(title: str) -> Iterator[None]:
    """A part of the demo, with the time that it took."""
    console.rule(f"[bold]{title}", align="left")
    started = time.monotonic()
    yield
    console.print(f"[dim]{time.monotonic() - started:.1f} s[/dim]")


@app.command()
def demo(keep: bool = typer.Option(False, help="Leave the model running at the end.")) -> None:
    """Bring up a cluster, install Conch, serve a model, ask it, scale it, replace it; let another follow its load.

    Examples: make demo · .venv/bin/python -m tests.demo --keep · CLUSTER=existing KUBECONFIG=~/.kube/config make demo
    """
    with step("1/10  A Kubernetes cluster and the images"):
        for command in ("up", "build-images"):
            subprocess.run([sys.executable, "-m", "tests.cluster", command], cwd=ROOT, check=True)
        cluster = Cluster.current()
        console.print(cluster.kubectl("get", "nodes", "-L", "nvidia.com/gpu.product").stdout.rstrip())
    with step("2/10  helm install conch charts/conch"):
        install(cluster)
        console.print(cluster.kubectl("get", "pods", "-n", "conch-system").stdout.rstrip())
    with step("3/10  kubectl apply -f manifests/samples/digits/model-deployment.yaml"):
        start(cluster)
        watch_until(cluster, NAMESPACE, NAME, _is_ready(1), console)
    with step("4/10  Inference over HTTP and gRPC through the Service"):
        _ask(cluster)
    with step("5/10  kubectl scale mdep digits: 1 -> 2 -> 1"):
        for replicas in (2, 1):
            _scale(cluster, replicas)
    _roll_out(cluster)
    with (
        step("9/10  Load rises, servers follow; it ends, none is left; one request wakes the model"),
        tempfile.TemporaryDirectory(prefix="conch-demo-") as folder,
    ):
        Scaling(cluster, console, Path(folder)).run()
    if keep:
        console.print(f"The models are still there: kubectl get mdep,pods -n {NAMESPACE}")
    else:
        with step(f"10/10  kubectl delete mdep {NAME} {SCALED}"):
            cluster.kubectl("delete", "mdep", NAME, SCALED, "-n", NAMESPACE)
            pods = ("pod", "-l", "conch.dev/model-deployment", "-n", NAMESPACE)
            cluster.kubectl("wait", "--for=delete", *pods, "--timeout=120s")
            cluster.kubectl("delete", "namespace", NAMESPACE)
    console.print(Panel(_next(cluster, keep), title="What to try next", expand=False))


def _is_ready(replicas: int) -> Callable[[dict[str, Any]], bool]:
    def check(live: dict[str, Any]) -> bool:
        status = live.get("status", {})
        ready: dict[str, Any] = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
        current = status.get("observedGeneration") == live["metadata"]["generation"]
        return bool(current and ready.get("status") == "True" and status.get("replicas") == replicas)

    return check


def _scale(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl("scale", "mdep", NAME, "-n", NAMESPACE, f"--replicas={replicas}")
    watch_until(cluster, NAMESPACE, NAME, _is_ready(replicas), console)


def _ask(cluster: Cluster) -> None:
    asked = digits()[3:6]
    pixels = np.stack([digit.pixels for digit in asked])
    with service_address(cluster) as host:
        by_http = infer(f"{host}:8000", NAME, pixels, protocol="http")
        by_grpc = infer(f"{host}:8001", NAME, pixels, protocol="grpc")
    panels = []
    for digit, http, grpc in zip(asked, by_http, by_grpc, strict=True):
        answers = f"HTTP: {http.argmax()} ({http.max():.1%})\ngRPC: {grpc.argmax()} ({grpc.max():.1%})"
        panels.append(Panel("\n".join([*digit.picture(), "", answers]), title=f"a drawn {digit.digit}", width=22))
    console.print(Columns(panels))
    if not np.array_equal(by_http.argmax(axis=1), by_grpc.argmax(axis=1)):
        raise SystemExit("HTTP and gRPC gave different answers")


def _roll_out(cluster: Cluster) -> None:
    """One load through all rollouts."""
    with (
        service_address(cluster) as host,
        tempfile.TemporaryDirectory(prefix="conch-demo-") as folder,
        begin_load(host, Path(folder) / "load") as running,
    ):
        rollouts = Rollouts(cluster, running, console)
        with step("6/10  A canary of version 2 under load"):
            rollouts.canary()
        with step("7/10  A bad version 3, which fails one request in five, rolls itself back"):
            rollouts.bad_version()
        _scale(cluster, 2)
        with step("8/10  Version 4 in the same two pods, one after the other"):
            rollouts.in_place()
            rollouts.finish()


def _next(cluster: Cluster, keep: bool) -> str:
    lines = [
        f"export KUBECONFIG={cluster.kubeconfig.relative_to(ROOT) if not existing() else cluster.kubeconfig}",
        f"export PATH={cluster.bin}:$PATH",
        "make demo-keep                     # the same, and the model stays",
        f".venv/bin/conch rollout history -n {NAMESPACE} {NAME}   # versions that served, and why one was given up",
        "kubectl get mdep -A -w             # one line per model, with the reason",
        f"kubectl describe mdep -n {NAMESPACE} {NAME}   # conditions and events",
        f"kubectl edit mdep -n {NAMESPACE} {NAME}       # try: replicas, suspend: true",
        "make cluster-down                  # what was built stays cached",
    ]
    return "\n".join(line for line in lines if not (keep and line.startswith("make demo-keep")))


app()
