"""The HPA rule of `conch simulate` beside the HorizontalPodAutoscaler of a real kube-controller-manager.

Real are etcd, API server, controller manager (HPA, Deployment, ReplicaSet), scheduler and the HPA's questions to
custom.metrics.k8s.io; kwok lets pods run after the cold start. What the pods do is simulated, by the same servers that
`conch simulate` has, under the same arrivals. Time is compressed: the HPA's periods and the cold start are divided, and
the trace is played so many times as fast. What cannot be compressed is how long API writes, controllers and scheduler
take: 0.1 s for a change are then 1.5 s of the trace. An HPA with `behavior` has periods of whole seconds, so it could
be compressed by 3, 5 or 15 alone; without it (the default, measured here) all its periods are flags.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
import yaml

from conch.kube.client import KubeClient
from conch.kube.reflector import ObjectKey, Reflector
from conch.kube.resources import DEPLOYMENTS, PODS
from conch.simulate import loads
from conch.simulate.outcome import Outcome
from conch.simulate.replay import simulate
from conch.simulate.rules.hpa import SYNC_SECONDS, TOLERANCE, PodMetric, quantity
from conch.simulate.rules.hpa_behavior import SCALE_DOWN_WINDOW_SECONDS
from conch.simulate.sweep import baselines, best
from conch.simulate.trace import Trace, read_trace
from tests.cluster import binaries
from tests.cluster.apiserver import ApiServer
from tests.cluster.ports import free_port
from tests.cluster.processes import Processes
from tests.cluster.progress import say, step
from tests.perf.autoscaling import (
    AZURE,
    BESIDE,
    HOUR_SECONDS,
    LATE_SHARE_GOAL,
    SEED,
    asked,
    cell,
    header,
    with_conch,
)
from tests.perf.scale.loopback import enter
from tests.perf.scale.metrics_api import is_available, metrics_api
from tests.perf.scale.played_model import Play, PlayedModel, apart, counts, simulated
from tests.perf.scale.world import start_nodes
from tests.support.waiting import until

_PROGRAMS: Final = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kwok")
_CONTROLLERS: Final = (
    "deployment-controller",
    "replicaset-controller",
    "horizontal-pod-autoscaler-controller",
    # Takes the taint off nodes that are Ready.
    "node-lifecycle-controller",
    "serviceaccount-controller",
)
_STAGES: Final = Path(__file__).with_name("stages.yaml")
_NAMESPACE: Final = "default"
_APP: Final = "played-by"
_CALLS_PER_SECOND: Final = 500
_METRICS: Final = (PodMetric.IN_FLIGHT, PodMetric.RATE)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One load with one HPA."""

    play: Play
    real: Outcome
    rule: Outcome
    """The simulator's, each 15 s."""
    same_syncs: Outcome
    """The simulator's, whenever the real one was asked."""
    conch: Outcome
    compared: int
    """Syncs whose answer is known."""
    sync_seconds: float
    """Of the trace, on average."""
    longest_sync_seconds: float
    agreed_share: float
    """Of these, how often the rule, told the same, answers the same."""

    @property
    def apart(self) -> np.ndarray:
        """Servers, by second; what the real one does a sync later is no difference."""
        return apart(counts(self.real), counts(self.same_syncs), shift_seconds=SYNC_SECONDS)


@app.command(epilog="Example: python -m tests.perf.scale.real_hpa --load bursts --compression 5")
def main(
    compression: Annotated[
        float, typer.Option(help="So many seconds of the trace in one second.", min=1, max=SYNC_SECONDS)
    ] = 15,
    cold_start: Annotated[float, typer.Option(help="Seconds of the trace until a pod serves.", min=1)] = 45,
    traces: Annotated[Path, typer.Option(help="Folder with the two Azure traces.", file_okay=False)] = BESIDE,
    load: Annotated[list[str] | None, typer.Option(help=f"Only these, of {', '.join((*AZURE, 'bursts'))}.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Play an hour of each load through the real HPA, all at the same time: 4 min by default, and 1 min before."""
    enter("tests.perf.scale.real_hpa", programs=_PROGRAMS)
    chosen = dict(_loads(traces, load or [*AZURE, "bursts"]))
    with step("what would be the best target of each", expected_seconds=40.0 * len(chosen)):
        plays = [_play(name, trace, cold_start, metric) for name, trace in chosen.items() for metric in _METRICS]
    played = asyncio.run(_played(plays, compression))
    with step("the same in simulation", expected_seconds=10.0 * len(chosen)):
        conch = {name: _with_history(trace, cold_start) for name, trace in chosen.items()}
        rows = [_row(each, conch[each.play.load], compression) for each in played]
    typer.echo(f"late share / replica-hours; {cold_start:g} s to start, {compression:g} x as fast")
    _print(rows)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps([_told(row) for row in rows], indent=1))


def _loads(traces: Path, only: Sequence[str]) -> Iterator[tuple[str, Trace]]:
    for name, file in AZURE.items():
        if name in only and (traces / file).exists():
            yield name, read_trace(traces / file)
        elif name in only:
            say(f"{name} is skipped: there is no {traces / file} (see tests/perf/autoscaling.py)")
    if "bursts" in only:
        yield "bursts", loads.bursts(0.5, 15, HOUR_SECONDS, seed=SEED, quiet_seconds=120, burst_seconds=20)


def _play(name: str, trace: Trace, cold_start_seconds: float, metric: PodMetric) -> Play:
    """With the target that the simulated rule does best with: it is told whether the real one does as well."""
    wanted = asked(trace, cold_start_seconds)
    baseline = next(
        each
        for each in baselines(wanted.fleet, wanted.bounds)
        if each.make(each.least).name == f"HPA on {metric.value}"
    )
    target = best(trace, baseline, wanted.fleet, late_share_most=LATE_SHARE_GOAL).knob
    return Play(
        name=f"{name}-{metric.value}".replace("_", "-"),
        load=name,
        trace=trace,
        fleet=wanted.fleet,
        bounds=wanted.bounds,
        metric=metric,
        # As exactly as Kubernetes takes it.
        target=round(target, 3),
    )


def _with_history(trace: Trace, cold_start_seconds: float) -> Outcome:
    """Conch, the second time through the trace."""
    span = trace.span_seconds
    return with_conch(trace.repeated(2), asked(trace, cold_start_seconds)).within(span, 2 * span)


def _row(played: PlayedModel, conch: Outcome, compression: float) -> Row:
    play, outcome = played.play, played.finish()
    syncs = np.diff(played.asked_at)
    say(f"  {play.name}: {len(syncs)} syncs, {syncs.mean() / compression:.3f} s apart")
    return Row(
        play=play,
        real=outcome,
        rule=simulate(play.trace, play.rule(), play.fleet),
        same_syncs=simulated(play, played.asked_at),
        conch=conch,
        compared=played.compared,
        sync_seconds=float(syncs.mean()),
        longest_sync_seconds=float(syncs.max()),
        agreed_share=played.agreed / played.compared,
    )


# The control plane.


async def _played(plays: Sequence[Play], compression: float) -> list[PlayedModel]:
    """All plays from their beginning to their end."""
    models = {play.name: PlayedModel(play, compression=compression) for play in plays}
    with _control_plane(plays[0], compression) as (api, start_controllers):
        async with (
            metrics_api(
                api, lambda selector, _: _measured(models, selector), metrics=[metric.value for metric in _METRICS]
            ),
            _followed(api, models) as followers,
        ):
            await asyncio.to_thread(until, lambda: is_available(api), "the metrics to be asked through the API server")
            start_controllers()
            _create(api, [_deployment(play) for play in plays])
            await asyncio.to_thread(
                until,
                lambda: all(len(model.running) == model.play.fleet.replicas for model in models.values()),
                "the first pods to run",
            )
            for model in models.values():
                model.begin()
            _create(api, [_autoscaler(play) for play in plays])
            seconds = max(play.trace.span_seconds for play in plays) / compression
            with step("the real HPA", expected_seconds=seconds):
                # Who ends earlier is played on a little: nothing of that counts.
                await asyncio.wait(followers, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            faults = [each.exception() for each in followers if each.done()]
            assert not faults, f"what the API server shows cannot be followed: {faults}"
    return list(models.values())


@contextmanager
def _control_plane(play: Play, compression: float) -> Iterator[tuple[ApiServer, Callable[[], None]]]:
    """An API server with fake nodes, and what starts the controller manager with its periods divided."""
    programs = binaries.ensure(*_PROGRAMS)
    with ApiServer(scheduler=True, client_qps=_CALLS_PER_SECOND) as api:
        extras = Processes(records=api.state / "extras", logs=api.logs)
        try:
            cold_start = play.fleet.cold_start_seconds
            assert not isinstance(cold_start, tuple), "one cold start for all pods"
            start_nodes(api, extras, programs, _stages(api.state / "stages.yaml", cold_start / compression))

            def start_controllers() -> None:
                extras.start("kube-controller-manager", _controller_manager(api, programs, compression))

            yield api, start_controllers
        finally:
            extras.stop(grace_seconds=0)


def _controller_manager(api: ApiServer, programs: Path, compression: float) -> list[str]:
    def divided(seconds: float) -> str:
        return f"{round(1000 * seconds / compression)}ms"

    return [
        str(programs / "kube-controller-manager"),
        f"--kubeconfig={api.kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={free_port()}",
        f"--cert-dir={api.state / 'pki'}",
        f"--flex-volume-plugin-dir={api.state / 'volume-plugins'}",
        "--leader-elect=false",
        f"--controllers={','.join(_CONTROLLERS)}",
        f"--kube-api-qps={_CALLS_PER_SECOND}",
        f"--kube-api-burst={2 * _CALLS_PER_SECOND}",
        f"--horizontal-pod-autoscaler-sync-period={divided(SYNC_SECONDS)}",
        f"--horizontal-pod-autoscaler-downscale-stabilization={divided(SCALE_DOWN_WINDOW_SECONDS)}",
        f"--horizontal-pod-autoscaler-tolerance={TOLERANCE:g}",
    ]


def _stages(path: Path, seconds: float) -> Path:
    """kwok's stages, with pods that run after so long."""
    stages = list(yaml.safe_load_all(_STAGES.read_text()))
    (ready,) = (stage for stage in stages if stage["metadata"]["name"] == "pod-ready")
    ready["spec"]["delay"] = {"durationMilliseconds": round(1000 * seconds)}
    path.write_text(yaml.safe_dump_all(stages))
    return path


def _create(api: ApiServer, bodies: Sequence[Mapping[str, Any]]) -> None:
    api.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(bodies)}))


def _deployment(play: Play) -> dict[str, Any]:
    labels = {_APP: play.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": play.name, "namespace": _NAMESPACE, "labels": labels},
        "spec": {
            "replicas": play.fleet.replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "triton", "image": "localhost/triton:dev"}]},
            },
        },
    }


def _autoscaler(play: Play) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": f"{quantity(play.target)}m"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": play.name, "namespace": _NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": play.name},
            "minReplicas": play.bounds.minimum,
            "maxReplicas": play.bounds.maximum,
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": play.metric.value}, "target": target}}],
        },
    }


# What it shows.


@asynccontextmanager
async def _followed(api: ApiServer, models: Mapping[str, PlayedModel]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tell each model what its Deployment asks for and which of its pods run, as long as this lasts."""
    client = await KubeClient.connect(api.kubeconfig)

    def deployment_changed(key: ObjectKey, before: int | None, after: int | None) -> None:
        del before
        if after is not None and (model := models.get(key[1])) is not None:
            model.scaled(after)

    def pod_changed(key: ObjectKey, before: _Pod | None, after: _Pod | None) -> None:
        del key
        _take_pods(models, pods, (after or before or ("", "", ""))[0])

    deployments = Reflector(
        client,
        DEPLOYMENTS,
        project=lambda live: int(live["spec"]["replicas"]),
        on_change=deployment_changed,
        label_selector=_APP,
    )
    pods: Reflector[_Pod] = Reflector(client, PODS, project=_pod, on_change=pod_changed, label_selector=_APP)
    tasks = [asyncio.ensure_future(each.run()) for each in (deployments, pods)]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await client.close()


_Pod = tuple[str, str, str]
"""(whose, phase, when created)"""


def _pod(live: Mapping[str, Any]) -> _Pod:
    metadata = live["metadata"]
    phase = "Ends" if "deletionTimestamp" in metadata else live["status"]["phase"]
    return metadata["labels"][_APP], phase, metadata["creationTimestamp"]


def _take_pods(models: Mapping[str, PlayedModel], pods: Reflector[_Pod], name: str) -> None:
    mine = [(created, key[1], phase) for key, (whose, phase, created) in pods.items() if whose == name]
    models[name].running = tuple(pod for _, pod, phase in sorted(mine) if phase == "Running")
    models[name].pending = sum(phase == "Pending" for *_, phase in mine)


def _measured(models: Mapping[str, PlayedModel], selector: str) -> Sequence[tuple[str, float]]:
    key, _, name = selector.partition("=")
    assert key == _APP, f"asked of {selector}, which is no pod of this benchmark"
    return models[name].measured()


# What came of it.


def _print(rows: Sequence[Row]) -> None:
    columns = (
        "load, HPA on",
        "target",
        "real HPA",
        "its rule",
        "Conch",
        "same answer",
        "servers apart: at most / mean",
    )
    typer.echo(header(*columns, "a sync, s: mean / longest"))
    for row in rows:
        cells = (
            row.play.name,
            f"{row.play.target:g}",
            *(cell(each) for each in (row.real, row.same_syncs, row.rule, row.conch)),
            f"{100 * row.agreed_share:.1f} % of {row.compared}",
            f"{row.apart.max()} of {row.same_syncs.peak} / {row.apart.mean():.1f}",
            f"{row.sync_seconds:.1f} / {row.longest_sync_seconds:.1f}",
        )
        typer.echo(f"| {' | '.join(cells)} |")


def _told(row: Row) -> dict[str, Any]:
    outcomes = {"real": row.real, "sameSyncs": row.same_syncs, "rule": row.rule, "conch": row.conch}
    return {
        "name": row.play.name,
        "target": row.play.target,
        **{name: {"lateShare": each.late_share, "replicaHours": each.replica_hours} for name, each in outcomes.items()},
        "apartMost": int(row.apart.max()),
        "apartMean": float(row.apart.mean()),
        "agreedShare": row.agreed_share,
        "syncs": row.compared,
        "syncSeconds": row.sync_seconds,
        "longestSyncSeconds": row.longest_sync_seconds,
        "counts": {name: counts(each)[::15].tolist() for name, each in outcomes.items()},
    }


if __name__ == "__main__":
    app()
