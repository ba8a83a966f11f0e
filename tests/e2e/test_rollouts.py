"""Version changes on the whole cluster, with real Triton and Envoy: none loses a request, no bad version stays."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.e2e.operators import kill_operators
from tests.e2e.versioned_model import NAME, Model, lost
from tests.load import Protocol
from tests.support import versions
from tests.support.gateways import lossless_load
from tests.support.model_store import ModelStore
from tests.support.waiting import until

# Beyond what all waits of a test take on a busy machine, so that they tell what did not come.
pytestmark = pytest.mark.timeout(600)

UNTIL_PROMOTED = {"pause": "UntilPromoted"}
CHECKS = [{"successRate": {"minimumPercent": 99}, "minimumSamples": 50}]


@pytest.fixture
def model(namespace: Namespace, store: ModelStore) -> Model:
    """Not deployed yet."""
    return Model(namespace, store)


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_no_request_is_lost_while_versions_are_promoted_aborted_and_superseded(
    namespace: Namespace, model: Model, cluster: Cluster, tmp_path: Path
) -> None:
    model.begin()
    # Long enough to be seen by who asks now and then.
    steps = [{"weight": 25, "pauseSeconds": 10}, {"weight": 50, **UNTIL_PROMOTED}]
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=40, duration_seconds=880) as load:
        load.mark("promoted")
        model.deploy(2, versions.recorded(2), steps=steps, analysis=[*CHECKS, {"goldenSet": {}}])
        model.wait_step(75, 25)
        load.mark("operators killed")
        kill_operators(cluster)
        model.wait_until_promoted()
        assert model.weights == [50, 50]
        until(lambda: {check["verdict"] for check in model.status["rollout"]["checks"]} == {"Pass"}, "its checks")
        assert "promote" in model.conch("rollout", "status")
        model.conch("promote")
        model.wait_served(2)
        load.mark("aborted")
        model.deploy(3, versions.MODEL, steps=steps)
        model.wait_until_promoted()
        model.conch("abort")
        model.wait_back("Aborted")
        assert namespace.condition(NAME, "Available")["status"] == "True"
        load.mark("superseded")
        model.deploy(4, versions.MODEL, steps=steps)
        model.wait_until_promoted()
        model.deploy(5, versions.MODEL)
        model.wait_served(5)
        load.mark("rolled back by command")
        model.conch("rollback")
        model.wait_stable(2)
        namespace.wait_reason(NAME, "RolloutAborted")
        result = load.stop()
    assert "Aborted" in model.conch("rollout", "history")
    assert lost(result) == ""


@pytest.mark.group("loads")
def test_a_version_that_fails_requests_is_withdrawn_and_not_tried_again(
    namespace: Namespace, model: Model, tmp_path: Path
) -> None:
    model.begin()
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=60, duration_seconds=580) as load:
        model.deploy(2, versions.failing(2, each=5), steps=[{"weight": 25, "pauseSeconds": 600}], analysis=CHECKS)
        model.wait_back("AnalysisFailed")
        message = namespace.wait_reason(NAME, "AnalysisFailed")
        load.mark("after")
        created = model.status["workloadsCreated"]
        namespace.cluster.kubectl("annotate", "mdep", NAME, "-n", namespace.name, "gitops=applied-again")
        until(lambda: load.progress()["scheduled"] > 0, "the load to go on")
        result = load.stop()
    assert "%" in message, "with the numbers"
    assert model.status["workloadsCreated"] == created
    assert model.status["stable"]["version"] == 1
    assert result.failed > 0, "it was bad"
    assert result.failed < 0.05 * result.answered, result.summary()


@pytest.mark.group("loads")
def test_a_version_that_answers_otherwise_than_recorded_gets_no_request(
    namespace: Namespace, model: Model, tmp_path: Path
) -> None:
    model.begin(versions.recorded(1))
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=60, duration_seconds=580) as load:
        model.deploy(2, versions.not_as_recorded(2), steps=[{"weight": 50}])
        model.wait_back("GoldenSetFailed")
        result = load.stop()
    message = namespace.wait_reason(NAME, "GoldenSetFailed")
    assert "probabilities" in message, "which output, and what it should have been"
    assert lost(result) == ""


def test_a_version_that_does_not_load_is_given_up_at_its_deadline(namespace: Namespace, model: Model) -> None:
    model.begin()
    model.deploy(2, versions.recorded(2)[:-100], progressDeadlineSeconds=40)
    model.wait_back("CandidateFailed")
    assert namespace.condition(NAME, "Available")["status"] == "True"
    namespace.wait_answers(NAME)


@pytest.mark.group("loads")
@pytest.mark.parametrize(
    ("strategy", "protocols"),
    [
        ("Replace", (Protocol.HTTP, Protocol.GRPC, Protocol.GRPC_STREAM)),
        # While nothing runs requests wait, and a stream that stays open keeps its old pod for a minute.
        ("Recreate", (Protocol.HTTP, Protocol.GRPC)),
    ],
)
def test_without_another_pod_no_request_is_lost_either(
    namespace: Namespace, model: Model, tmp_path: Path, strategy: str, protocols: tuple[Protocol, ...]
) -> None:
    model.begin()
    with lossless_load(
        *(namespace.address(NAME), NAME, tmp_path),
        rate_per_second=20,
        duration_seconds=580,
        timeout_seconds=120,
        protocols=protocols,
    ) as load:
        most = _most_pods(namespace, lambda: model.deploy(2, versions.MODEL, strategy=strategy), model)
        model.wait_served(2)
        result = load.stop()
    assert most <= 2, "no pod beside them"
    assert lost(result) == ""


def _most_pods(namespace: Namespace, change: Callable[[], None], model: Model) -> int:
    """The most pods that had their resources at a time, from the change to the new version."""
    selector = f"conch.dev/model-deployment={NAME}"
    most = 0

    def changed() -> bool:
        nonlocal most
        pods = namespace.cluster.get("pods", "-n", namespace.name, "-l", selector)["items"]
        most = max(most, sum(pod["status"]["phase"] in ("Pending", "Running") for pod in pods))
        return bool(model.status["stable"]["version"] == 2)

    change()
    until(changed, "the new version", seconds=180)
    return most


@pytest.mark.group("gpus")
def test_where_no_gpu_is_free_an_automatic_rollout_does_without(namespace: Namespace, store: ModelStore) -> None:
    # The local cluster has eight GPUs.
    model = Model(namespace, store, gpu={"count": 4})
    model.begin()
    model.deploy(2, versions.MODEL)
    model.wait_served(2)
    rollout = model.status["rollout"]
    assert (rollout["strategy"], "Insufficient nvidia.com/gpu" in rollout["strategyReason"]) == ("InPlace", True)
