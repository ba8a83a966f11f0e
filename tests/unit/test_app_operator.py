"""Which changes are worked on, and how soon."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from conch.api import names
from conch.app.operator import Operator
from conch.kube.client import KubeClient
from conch.kube.reflector import ObjectKey
from conch.settings import ImageSettings, OperatorSettings
from tests.support.virtual_time import run_virtually, virtual_now

AUTOSCALED = {"autoscaling": {"minReplicas": 0, "maxReplicas": 5, "objective": {"latencyMs": 200}}}


def _object(name: str, version: int, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"namespace": "ns", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {"model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}, **spec},
    }


def _with_operator(test: Callable[[Operator], Awaitable[None]], *, leads: bool = True) -> None:
    async def main() -> None:
        settings = OperatorSettings(images=ImageSettings(triton="triton", agent="agent"))
        operator = Operator(
            cast(KubeClient, None),
            settings,
            namespace="conch",
            identity="a",
            installation_key=b"k" * 32,
            gateway_token=lambda: "t",
        )
        operator._leading = leads
        await test(operator)

    run_virtually(main)


def test_what_a_person_wants_goes_before_what_the_cluster_reports() -> None:
    async def test(operator: Operator) -> None:
        operator._seen_changed(("ns", "seen"))
        await asyncio.sleep(1)
        operator._model_deployment_changed("ADDED", _object("wanted", 1))
        assert [await operator._queue.take() for _ in range(2)] == [("ns", "wanted"), ("ns", "seen")]

    _with_operator(test)


def test_a_burst_of_reports_is_looked_at_once_and_soon() -> None:
    async def test(operator: Operator) -> None:
        for _ in range(5):
            operator._seen_changed(("ns", "a"))
            await asyncio.sleep(0.01)
        assert len(operator._queue) == 0
        operator._queue.done(await operator._queue.take())
        assert 0.1 <= virtual_now() < 0.2
        await asyncio.sleep(10)
        assert len(operator._queue) == 0

    _with_operator(test)


def test_an_edit_does_not_wait_for_the_end_of_a_burst() -> None:
    async def test(operator: Operator) -> None:
        operator._seen_changed(("ns", "a"))
        operator._model_deployment_changed("MODIFIED", _object("a", 2))
        assert len(operator._queue) == 1
        await operator._queue.take()
        assert virtual_now() == 0

    _with_operator(test)


def test_the_echo_of_a_write_is_no_work() -> None:
    async def test(operator: Operator) -> None:
        operator._view.put_model_deployment(_object("a", 7))
        operator._model_deployment_changed("MODIFIED", _object("a", 7))
        assert len(operator._queue) == 0

    _with_operator(test)


def test_a_standby_only_watches() -> None:
    async def test(operator: Operator) -> None:
        operator._model_deployment_changed("ADDED", _object("a", 1))
        operator._seen_changed(("ns", "a"))
        await asyncio.sleep(1)
        assert len(operator._queue) == 0
        assert operator._view.known() == (("ns", "a"),)

    _with_operator(test, leads=False)


def test_a_held_request_has_its_object_looked_at_and_planned_at_once() -> None:
    async def test(operator: Operator) -> None:
        operator._view.put_model_deployment(_object("a", 1, **AUTOSCALED))
        owner = operator._view.model_deployment(("ns", "a"))
        assert owner is not None
        operator._gateways._on_wake(("ns", "a"))
        assert operator._autoscaler.scaling(owner) is not None
        assert await operator._queue.take() == ("ns", "a")
        assert virtual_now() == 0
        looks: list[ObjectKey] = []

        def look(key: ObjectKey) -> None:
            looks.append(key)

        operator._autoscaler.look = look  # type: ignore[method-assign]  # a stand-in
        operator._autoscaler._known[("ns", "a")].carried = 10
        operator._gateways._on_arrivals(("ns", "a"), 9.0)
        operator._gateways._on_arrivals(("ns", "a"), 11.0)
        assert looks == [("ns", "a")]

    _with_operator(test)


def test_a_standby_wakes_nobody() -> None:
    async def test(operator: Operator) -> None:
        operator._view.put_model_deployment(_object("a", 1, **AUTOSCALED))
        owner = operator._view.model_deployment(("ns", "a"))
        assert owner is not None
        operator._gateways._on_wake(("ns", "a"))
        operator._gateways._on_arrivals(("ns", "a"), 1e9)
        assert operator._autoscaler.scaling(owner) is None
        assert len(operator._queue) == 0

    _with_operator(test, leads=False)
