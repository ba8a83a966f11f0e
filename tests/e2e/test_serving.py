"""From apply to the right numbers."""

import numpy as np
import onnxruntime
import pytest
from tritonclient.utils import InferenceServerException

from tests.e2e.conftest import SAMPLE, Namespace
from tests.support.archives import tar_gz
from tests.support.inference import digits, infer
from tests.support.model_store import ModelStore
from tests.support.waiting import until

PIXELS = np.stack([digit.pixels for digit in digits()])
MODEL = SAMPLE.read_bytes()


def expected() -> np.ndarray:
    """What onnxruntime itself makes of the drawings."""
    session = onnxruntime.InferenceSession(SAMPLE, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": PIXELS})[0])


@pytest.mark.group("gpus")
def test_a_model_answers_over_http_and_grpc_as_onnxruntime_does(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"))
    namespace.wait_ready("digits")
    address = namespace.address("digits")
    np.testing.assert_allclose(infer(f"{address}:8000", "digits", PIXELS, protocol="http"), expected(), atol=1e-6)
    np.testing.assert_allclose(infer(f"{address}:8001", "digits", PIXELS, protocol="grpc"), expected(), atol=1e-6)
    status = namespace.mdep("digits")["status"]
    assert status["stable"]["version"] == 1
    assert status["stable"]["digest"].startswith("sha256:")
    assert status["url"] == f"http://digits.{namespace.name}.svc:8000"


@pytest.mark.group("gpus")
def test_scaling_up_and_down(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"))
    namespace.wait_ready("digits")
    for replicas in (3, 1):
        namespace.cluster.kubectl("scale", "mdep", "digits", "-n", namespace.name, f"--replicas={replicas}")
        namespace.wait_ready("digits", replicas=replicas)
        until(lambda: len(namespace.ready_endpoints("digits")) == replicas, "the endpoints")  # noqa: B023 - used at once
    assert namespace.mdep("digits")["status"]["replicas"] == 1


@pytest.mark.group("gpus")
def test_suspending_frees_the_gpu_and_keeps_the_address(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"))
    namespace.wait_ready("digits")
    address = namespace.address("digits")
    namespace.deploy("digits", store.uri("/digits.onnx"), suspend=True)
    until(lambda: not namespace.pods("digits"), "the pods to go")
    until(lambda: namespace.condition("digits", "Ready").get("reason") == "Suspended", "status to say why")
    namespace.deploy("digits", store.uri("/digits.onnx"), suspend=False)
    namespace.wait_ready("digits")
    assert namespace.address("digits") == address


@pytest.mark.group("gpus")
def test_a_new_version_takes_over_and_the_old_pods_go(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"))
    namespace.wait_ready("digits")
    (old,) = namespace.pods("digits")
    namespace.deploy("digits", store.uri("/digits.onnx"), model={"version": 2})
    until(lambda: namespace.mdep("digits")["status"].get("stable", {}).get("version") == 2, "version 2 to serve")
    until(lambda: [pod["metadata"]["name"] for pod in namespace.pods("digits")] != [old["metadata"]["name"]], "the old")
    namespace.wait_ready("digits")
    answer = infer(f"{namespace.address('digits')}:8000", "digits", PIXELS, protocol="http")
    np.testing.assert_allclose(answer, expected(), atol=1e-6)


@pytest.mark.group("gpus")
def test_a_new_version_that_does_not_load_takes_nothing_away(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"))
    namespace.wait_ready("digits")
    serving = namespace.ready_endpoints("digits")
    broken = store.put("/broken.onnx", MODEL[:5000])
    namespace.deploy("digits", broken, model={"version": 2})
    namespace.wait_reason("digits", "InvalidModel")
    assert namespace.condition("digits", "Available")["status"] == "True"
    assert namespace.ready_endpoints("digits") == serving
    namespace.deploy("digits", store.uri("/digits.onnx"))
    namespace.wait_ready("digits")
    until(lambda: len(namespace.pods("digits")) == 1, "the failed candidate to go")
    assert namespace.ready_endpoints("digits") == serving


CONFIG = """
backend: "onnxruntime"
max_batch_size: 16
input { name: "pixels" data_type: TYPE_FP32 dims: 64 }
output { name: "probabilities" data_type: TYPE_FP32 dims: 10 }
"""


@pytest.mark.parametrize("path", ["models/fraud", "models/fraud/1/model.onnx"], ids=["model-directory", "bare-file"])
def test_a_model_from_a_claim(namespace: Namespace, path: str) -> None:
    with namespace.claim("store", {"models/fraud/config.pbtxt": CONFIG.encode(), "models/fraud/1/model.onnx": MODEL}):
        namespace.deploy("fraud", f"pvc://store/{path}", gpu={"count": 0})
        namespace.wait_ready("fraud")
        answer = infer(f"{namespace.address('fraud')}:8000", "fraud", PIXELS, protocol="http")
        np.testing.assert_allclose(answer, expected(), atol=1e-6)


@pytest.mark.group("gpus")
def test_a_repository_in_an_archive_with_overrides(namespace: Namespace, store: ModelStore) -> None:
    archive = tar_gz({"repository/digits/config.pbtxt": CONFIG.encode(), "repository/digits/4/model.onnx": MODEL})
    uri = store.put("/repository.tar.gz", archive)
    namespace.deploy("digits", uri, model={"version": 4, "config": {"maxBatchSize": 4}})
    namespace.wait_ready("digits")
    address = f"{namespace.address('digits')}:8000"
    np.testing.assert_allclose(infer(address, "digits", PIXELS[:4], protocol="http"), expected()[:4], atol=1e-6)
    with pytest.raises(InferenceServerException, match="batch-size must be <= 4"):
        infer(address, "digits", PIXELS[:5], protocol="http")


@pytest.mark.group("gpus")
def test_two_models_from_two_sources_share_one_pod(namespace: Namespace, store: ModelStore) -> None:
    further = {"name": "second", "version": 3, "source": {"uri": store.uri("/second.tar.gz")}}
    store.put("/second.tar.gz", tar_gz({"second/3/model.onnx": MODEL}))
    namespace.deploy("digits", store.uri("/digits.onnx"), models=[further])
    namespace.wait_ready("digits")
    assert len(namespace.pods("digits")) == 1
    address = namespace.address("digits")
    for model in ("digits", "second"):
        np.testing.assert_allclose(infer(f"{address}:8000", model, PIXELS, protocol="http"), expected(), atol=1e-6)
        np.testing.assert_allclose(infer(f"{address}:8001", model, PIXELS, protocol="grpc"), expected(), atol=1e-6)

    # Another version of the second one is another revision; the store has no such version.
    namespace.deploy("digits", store.uri("/digits.onnx"), models=[{**further, "version": 4}])
    message = namespace.wait_reason("digits", "InvalidModel")
    assert "the model 'second': the model has no version 4; it has 3; set spec.models[0].version" in message
    np.testing.assert_allclose(infer(f"{address}:8000", "second", PIXELS, protocol="http"), expected(), atol=1e-6)
