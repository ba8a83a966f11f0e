"""Every sample on the local cluster: pushed to a claim, applied, Ready, asked; two of them get a second version."""

import importlib.util
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pytest
import yaml

from conch.packaging.served import signature
from conch.packaging.tensors import Array
from conch.triton.comparison import compare
from conch.triton.config_pbtxt import parse_config
from conch.triton.golden_set import Sample, read_golden_set
from conch.triton.tensors import Tensor
from tests.cluster.constants import REPOSITORY
from tests.e2e.conftest import Namespace
from tests.packaging.samples import NAMES, SAMPLES, SECOND_VERSIONS, Built, built
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(900)

PACKAGED: Final = REPOSITORY / ".cluster" / "samples"
CLAIM: Final = "models"
PORTS: Final = {"http": 8000, "grpc": 8001}
READY_SECONDS: Final = 240
ROLLOUT_SECONDS: Final = 400
ASKED_EVERY_SECONDS: Final = 0.03


def client() -> Any:
    """The samples' own client, manifests/samples/client.py."""
    spec = importlib.util.spec_from_file_location("samples_client", SAMPLES / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_claim_is_the_one_that_the_samples_name() -> None:
    claim = yaml.safe_load((SAMPLES / "models-claim.yaml").read_text())
    assert (claim["kind"], claim["metadata"]["name"]) == ("PersistentVolumeClaim", CLAIM)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_served_from_a_claim_and_answers_as_recorded(namespace: Namespace, name: str) -> None:
    sample = built(name, PACKAGED)
    with namespace.claim(CLAIM, _on_claim(sample)):
        _apply(namespace, sample)
        namespace.wait_ready(name, seconds=READY_SECONDS)
        if name == "pipeline":
            _decides(namespace, sample)
        else:
            _answers_as_recorded(namespace, sample)


@pytest.mark.parametrize("name", SECOND_VERSIONS)
def test_a_second_version_takes_over_as_a_canary_with_the_golden_set_as_gate(namespace: Namespace, name: str) -> None:
    first, second = built(name, PACKAGED), built(name, PACKAGED, version=2)
    with namespace.claim(CLAIM, {**_on_claim(first), **_on_claim(second)}):
        _apply(namespace, first)
        namespace.wait_ready(name, seconds=READY_SECONDS)
        with _traffic(namespace, first) as failures:
            _apply(namespace, second)
            checks = _taken_over(namespace, name)
        assert failures == []
        assert checks["goldenSet"] == {"Pass"}
        assert "Pass" in checks["successRate"]
        assert "Fail" not in checks["successRate"]
        namespace.wait_ready(name, seconds=READY_SECONDS)
        _answers_as_recorded(namespace, second)


def _on_claim(sample: Built) -> dict[str, bytes]:
    """The files that `conch push` would put there."""
    files = (file for file in sample.path.rglob("*") if file.is_file())
    return {
        f"{sample.name}/{sample.version}/{file.relative_to(sample.path).as_posix()}": file.read_bytes()
        for file in files
    }


def _apply(namespace: Namespace, sample: Built) -> None:
    namespace.cluster.kubectl("apply", "-n", namespace.name, "-f", str(sample.manifest))


def _taken_over(namespace: Namespace, name: str) -> dict[str, set[str]]:
    """What each check of the rollout said, once version 2 is the stable one and nothing else gets requests."""
    seen: dict[str, set[str]] = {}
    shares: set[int] = set()

    def over() -> dict[str, Any] | None:
        status: dict[str, Any] = namespace.mdep(name)["status"]
        for check in status.get("rollout", {}).get("checks", ()):
            seen.setdefault(check["name"], set()).add(check["verdict"])
        shares.update(share["weight"] for share in status.get("traffic", ()))
        taken = status["stable"]["version"] == 2 and len(status["traffic"]) == 1
        return status if taken or status.get("rejected") else None

    status = until(over, f"version 2 of {name}", seconds=ROLLOUT_SECONDS)
    assert not status.get("rejected"), status["rejected"]
    assert {20, 50} <= shares, "the steps that its YAML names"
    return seen


@contextmanager
def _traffic(namespace: Namespace, sample: Built) -> Iterator[list[str]]:
    """Requests one after the other, through the gateway; yields what went wrong."""
    inputs = _inputs([_recorded(sample)[0]])
    over, failures = threading.Event(), list[str]()
    library, address = client(), f"{namespace.address(sample.name)}:{PORTS['http']}"

    def ask() -> None:
        while not over.wait(ASKED_EVERY_SECONDS):
            try:
                library.ask(address, sample.name, inputs)
            except Exception as error:  # whatever a client may see
                failures.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield failures
    finally:
        over.set()
        thread.join()


def _recorded(sample: Built) -> tuple[Sample, ...]:
    """The golden set: what the model answered where it was packaged, within 1e-5 of torch's answer."""
    folder = sample.path if (sample.path / "golden.json").is_file() else sample.path / sample.name
    model = signature(parse_config((folder / "config.pbtxt").read_text()))
    return read_golden_set((folder / "golden.json").read_bytes(), model)


def _inputs(samples: list[Sample]) -> dict[str, Array]:
    """A batch of them."""
    return {
        tensor.name: np.stack([sample.inputs[index].array for sample in samples])
        for index, tensor in enumerate(samples[0].inputs)
    }


def _answers_as_recorded(namespace: Namespace, sample: Built) -> None:
    # One by one: of eight bits the answers depend on the batch.
    for each in _recorded(sample)[:8]:
        for protocol, port in PORTS.items():
            answers: Mapping[str, Array] = client().ask(
                f"{namespace.address(sample.name)}:{port}", sample.name, _inputs([each]), grpc=protocol == "grpc"
            )
            for expected in each.expected:
                told = expected.tensor
                answer = Tensor(name=told.name, datatype=told.datatype, array=answers[told.name][0])
                difference = compare(each.number, expected, answer)
                assert difference is None, (protocol, difference)


def _decides(namespace: Namespace, sample: Built) -> None:
    """The pipeline, of which nothing is recorded: against what torch said after training."""
    records = np.load(sample.trained / "records.npz")["RECORD"]
    expected = np.load(sample.trained / "expected.npz")
    for start in range(0, len(records), 16):
        rows = slice(start, start + 16)
        for protocol, port in PORTS.items():
            address = f"{namespace.address(sample.name)}:{port}"
            answers = client().ask(address, sample.name, {"RECORD": records[rows]}, grpc=protocol == "grpc")
            wines = [wine.decode() for wine in answers["WINE"][:, 0]]
            assert wines == expected["WINE"][rows, 0].tolist()
            np.testing.assert_allclose(answers["CONFIDENCE"], expected["CONFIDENCE"][rows], rtol=1e-4)
            sure = expected["CONFIDENCE"][rows, 0] >= 0.9
            decisions = [decision.decode() for decision in answers["DECISION"][:, 0]]
            assert [decision.startswith("label it ") for decision in decisions] == sure.tolist()
