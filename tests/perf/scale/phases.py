"""What is measured: each phase is one coroutine that leaves its figures in the results."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conch.api import names
from conch.kube.reflector import ObjectKey
from conch.kube.resources import DEPLOYMENTS, MODEL_DEPLOYMENTS
from tests.cluster.progress import say, step
from tests.perf.scale import audit
from tests.perf.scale.audit import Request
from tests.perf.scale.etcd_size import stored_bytes
from tests.perf.scale.poisoned_operator import POISON
from tests.perf.scale.process import usage
from tests.perf.scale.profiles import profiled
from tests.perf.scale.world import FLOOR, MODELS, Count, World, model, plain_deployment
from tests.support.operator_process import OperatorProcess

_LONG_SECONDS: Final = 900.0
_STORED_KINDS: Final = (
    "conch.dev/modeldeployments",
    "deployments",
    "replicasets",
    "pods",
    "configmaps",
    "controllerrevisions",
    "secrets",
    "services/specs",
    "services/endpoints",
    "endpointslices",
    "poddisruptionbudgets",
    "networkpolicies",
    "events",
)


@dataclass(slots=True)
class Results:
    """Figures by name, in the order in which they were found, and the requests behind them."""

    figures: dict[str, float] = field(default_factory=dict)
    requests: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, **figures: float) -> None:
        """Add figures, and say them at once."""
        self.figures |= figures
        say("  " + ", ".join(f"{name} {value:,.2f}" for name, value in figures.items()))


async def floor(world: World, results: Results, objects: int) -> None:
    """What the cluster needs for as many plain Deployments of one pod; they are removed again."""
    available, pods = world.count_floor(), world.count_floor_pods()
    with step(f"{objects} plain Deployments"):
        started = time.monotonic()
        await world.create(DEPLOYMENTS, (plain_deployment(index) for index in range(objects)))
        await available.reached(objects, "plain Deployments available", seconds=_LONG_SECONDS)
        results.note(floor_ready_seconds=time.monotonic() - started)
    with step("removing them"):
        world.api.kubectl("delete", "deployments", "--all", "-n", FLOOR, "--wait=false")
        await pods.reached(0, "pods left", seconds=_LONG_SECONDS)
    for count in (available, pods):
        await count.stop()


async def bare(world: World, results: Results, objects: int) -> None:
    """The same children as Conch's, written by a bare client that does nothing else: the floor of this design."""
    available, pods = world.count_floor(), world.count_floor_pods()
    with step(f"the children of {objects} ModelDeployments without Conch"):
        started = time.monotonic()
        await world.create_bare(model(index) for index in range(objects))
        results.note(bare_written_seconds=time.monotonic() - started)
        await available.reached(objects, "bare Deployments available", seconds=_LONG_SECONDS)
        results.note(bare_ready_seconds=time.monotonic() - started)
    with step("removing them"):
        kinds = "deployments,services,configmaps,controllerrevisions,secrets,endpointslices"
        kinds += ",poddisruptionbudgets,networkpolicies"
        world.api.kubectl("delete", kinds, "-l", "conch.dev/model-deployment", "-n", FLOOR, "--wait=false")
        await pods.reached(0, "pods left", seconds=_LONG_SECONDS)
    for count in (available, pods):
        await count.stop()


async def burst(
    world: World, results: Results, operator: OperatorProcess, objects: int, *, profiles: Path | None
) -> None:
    """All objects created at once."""
    before, server = usage(operator.pid), usage(world.api.pid("kube-apiserver"))
    ready = world.count_ready_models()
    await ready.reached(0, "models", seconds=30)
    world.audit.skip()
    with step(f"{objects} ModelDeployments at once"), profiled(world, operator.pid, profiles, "burst"):
        started, started_at = time.monotonic(), time.time()
        await world.create(MODEL_DEPLOYMENTS, (model(index) for index in range(objects)))
        results.note(created_seconds=time.monotonic() - started)
        await ready.reached(objects, "models Ready", seconds=_LONG_SECONDS)
        ready_seconds = time.monotonic() - started
    await ready.stop()
    await settle(operator)
    requests = world.operator_requests(world.audit.read())
    written = [each.answered for each in requests if each.resource == "deployments" and each.verb == "patch"]
    after, server_after = usage(operator.pid), usage(world.api.pid("kube-apiserver"))
    results.requests["created"] = audit.by_kind(audit.without_lease(requests))
    results.note(
        children_written_seconds=max(written) - started_at,
        ready_seconds=ready_seconds,
        requests_per_object=results.requests["created"].total() / objects,
        told_per_object=audit.statuses_and_events(results.requests["created"]) / objects,
        asked_per_object=audit.without_statuses_and_events(results.requests["created"]) / objects,
        operator_cpu_seconds=after.cpu_seconds - before.cpu_seconds,
        api_server_cpu_seconds=server_after.cpu_seconds - server.cpu_seconds,
        rss_start_mib=before.resident_mib,
        rss_peak_mib=after.peak_mib,
        rss_settled_mib=after.resident_mib,
    )
    for reference in ("floor", "bare"):
        if (seconds := results.figures.get(f"{reference}_ready_seconds")) is not None:
            results.note(**{f"ready_x_{reference}": ready_seconds / seconds})
    stored = stored_bytes(world.api.etcd, (f"/registry/{kind}/{MODELS}/" for kind in _STORED_KINDS))
    results.note(etcd_bytes_per_object=stored / objects)


async def edits(
    world: World,
    results: Results,
    operator: OperatorProcess,
    objects: int,
    *,
    edits: int,
    name: str,
    profiles: Path | None = None,
) -> None:
    """Single edits, timed by the API server's audit log.

    Each begins when the pods of the one before are there: an edit is measured and not a load of edits. Each asks for
    one replica more: with fewer a Deployment is written only once the gateways have drained the pod that goes.
    """
    replicas = world.count_replicas()
    await replicas.reached(objects, "Deployments", seconds=60)
    chosen = random.Random(name).sample(range(objects), k=min(edits, objects))
    deployment_of = await _deployments(world)
    world.audit.skip()
    with step(f"{len(chosen)} edits ({name})"), profiled(world, operator.pid, profiles, name):
        for index in chosen:
            await _edit_and_follow(world, replicas, f"model-{index}", deployment_of[f"model-{index}"])
    await settle(operator)
    await replicas.stop()
    requests = world.audit.read()
    delays = sorted(_delays(world, requests))
    results.requests[name] = audit.by_kind(audit.without_lease(world.operator_requests(requests)))
    results.note(
        **{
            f"{name}_p50_ms": _quantile(delays, 0.50) * 1000,
            f"{name}_p99_ms": _quantile(delays, 0.99) * 1000,
            f"{name}_requests_per_edit": results.requests[name].total() / len(chosen),
            f"{name}_told_per_edit": audit.statuses_and_events(results.requests[name]) / len(chosen),
            f"{name}_asked_per_edit": audit.without_statuses_and_events(results.requests[name]) / len(chosen),
        }
    )


async def _edit_and_follow(world: World, replicas: Count, name: str, deployment: str) -> None:
    key = (MODELS, deployment)
    wanted = _replicas_wanted(replicas, key) + 1
    await world.edit(name, replicas=wanted)
    await replicas.until(lambda: replicas.value(key) == (wanted, wanted), f"{deployment} to follow", seconds=60)


def _replicas_wanted(replicas: Count, key: ObjectKey) -> int:
    value = replicas.value(key)
    assert isinstance(value, tuple)
    return int(value[0])


def _delays(world: World, requests: Sequence[Request]) -> list[float]:
    """Seconds from each edit's answer to the answer of the first write of that object's Deployment after it."""
    writes = [
        each for each in world.operator_requests(requests) if (each.verb, each.resource) == ("patch", "deployments")
    ]
    delays = []
    for edit in requests:
        if edit.resource == "modeldeployments" and edit.verb == "patch":
            mine = (w.answered for w in writes if w.name.startswith(f"{edit.name}-") and w.answered > edit.received)
            delays.append(min(mine) - edit.answered)
    return delays


async def _deployments(world: World) -> dict[str, str]:
    label = names.LABEL_MODEL_DEPLOYMENT
    pages = world.editor.pages(DEPLOYMENTS, label_selector=label, metadata_only=True)
    found = [item["metadata"] async for page in pages for item in page["items"]]
    return {meta["labels"][label]: meta["name"] for meta in found}


async def idle(world: World, results: Results, operator: OperatorProcess, *, seconds: float) -> None:
    """Nothing happens; nothing should be asked."""
    before = usage(operator.pid)
    world.audit.skip()
    with step(f"idle for {seconds:.0f} s", expected_seconds=seconds):
        await asyncio.sleep(seconds)
    requests = list(audit.without_lease(world.operator_requests(world.audit.read())))
    results.requests["idle"] = audit.by_kind(requests)
    results.note(
        idle_writes=sum(each.writes for each in requests),
        idle_requests_per_second=len(requests) / seconds,
        idle_cpu_percent=(usage(operator.pid).cpu_seconds - before.cpu_seconds) / seconds * 100,
    )


async def restart(world: World, results: Results, operator: OperatorProcess, objects: int) -> None:
    """The operator ends and another starts: it must find everything as it should be."""
    with step("restart"):
        operator.terminate()
        world.audit.skip()
        operator.start()
        await _metric_reaches(operator, "conch_leading", 1)
        led = time.monotonic()
        await _caught_up(operator, objects)
        caught_up = time.monotonic() - led - _SETTLED_SECONDS
        # What was only put off would be asked for in the next seconds.
        await asyncio.sleep(10)
    requests = list(audit.without_lease(world.operator_requests(world.audit.read())))
    results.requests["restart"] = audit.by_kind(requests)
    results.note(
        restart_caught_up_seconds=max(caught_up, 0.0),
        restart_writes=sum(each.writes for each in requests),
        restart_events=sum(each.resource == "events" for each in requests),
        restart_lists_per_resource=audit.most_listed(requests),
        restart_rss_mib=usage(operator.pid).resident_mib,
    )


async def outage(world: World, results: Results, operator: OperatorProcess) -> None:
    """The API server restarts: every watch ends, and what it was reading from is too old for the new one (410)."""
    pid = operator.pid
    replicas = world.count_replicas()
    key = (MODELS, (await _deployments(world))["model-0"])
    await replicas.until(lambda: replicas.value(key) is not None, "the Deployments", seconds=60)
    wanted = _replicas_wanted(replicas, key) + 1
    with step("API server restarted"):
        world.api.stop_server()
        world.api.start_server()
        world.audit.skip()
        started = time.monotonic()
        await _edit_until_taken(world, "model-0", replicas=wanted)
        await replicas.until(lambda: replicas.value(key) == (wanted, wanted), "the edit to be acted on", seconds=120)
        recovered = time.monotonic() - started
        await settle(operator)
        # A watch that was not lost at once is found out by its own back-off, of 20 s at most.
        await asyncio.sleep(25)
    await replicas.stop()
    assert operator.pid == pid
    assert operator.running, "the operator ended"
    lists = audit.lists(world.operator_requests(world.audit.read()))
    results.requests["outage"] = audit.by_kind(lists)
    results.note(
        outage_recovered_seconds=recovered,
        outage_lists_per_resource=audit.most_listed(lists),
        outage_lists_per_second=audit.busiest_second(lists),
    )


async def _edit_until_taken(world: World, name: str, **spec: Any) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                return await world.edit(name, **spec)
            except Exception as error:  # the API server has just come back
                say(f"  not yet: {error}")
                await asyncio.sleep(0.5)


async def poison(world: World, results: Results, objects: int, *, edits_: int) -> None:
    """One object whose planning always fails, among all the others."""
    with world.operator("poisoned", module="tests.perf.scale.poisoned_operator") as operator:
        await _caught_up(operator, objects)
        await world.create(MODEL_DEPLOYMENTS, [model(0, POISON)])
        await edits(world, results, operator, objects, edits=edits_, name="poison_edit")
        failures = operator.metric("conch_reconciles_total", outcome="failed")
        assert failures > 0, "the poison was met"
    world.api.kubectl("delete", "mdep", POISON, "-n", MODELS, "--wait=false")


async def silent(world: World, results: Results, objects: int, *, edits_: int) -> None:
    """No agent answers: each question waits for its time to run out."""
    world.silence_agents(True)
    try:
        with world.operator("silent") as operator:
            await _caught_up(operator, objects)
            await edits(world, results, operator, objects, edits=edits_, name="silent_edit")
            assert operator.metric("conch_agent_polls_total", outcome="silent") > 0, "agents were asked"
    finally:
        world.silence_agents(False)


async def slow(world: World, results: Results, objects: int, *, edits_: int, delay_seconds: float) -> None:
    """Each call to the API server takes longer."""
    with world.operator("slow", through=world.delayed(delay_seconds)) as operator:
        await _caught_up(operator, objects)
        await edits(world, results, operator, objects, edits=edits_, name="slow_edit")


_SETTLED_SECONDS: Final = 1.0


async def settle(operator: OperatorProcess) -> None:
    """Wait until nothing was reconciled for a second."""
    last, since = -1.0, time.monotonic()
    async with asyncio.timeout(_LONG_SECONDS):
        while time.monotonic() - since < _SETTLED_SECONDS:
            now = operator.metric("conch_reconciles_total", outcome="done")
            if now != last:
                last, since = now, time.monotonic()
            await asyncio.sleep(0.1)


async def _caught_up(operator: OperatorProcess, objects: int) -> None:
    """Wait until an operator that has just started has looked at everything, and asked every agent."""
    await _metric_reaches(operator, "conch_reconciles_total", objects)
    await settle(operator)


async def _metric_reaches(operator: OperatorProcess, name: str, value: float) -> None:
    async with asyncio.timeout(_LONG_SECONDS):
        while True:
            if operator.metric(name) >= value:
                return
            await asyncio.sleep(0.05)


def _quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank.

    >>> _quantile([1, 2, 3, 4], 0.5), _quantile([1, 2, 3, 4], 0.99)
    (2, 4)
    """
    return values[max(0, -(-int(share * 100) * len(values) // 100) - 1)]
