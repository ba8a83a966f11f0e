"""The agent against the real Triton: one test per behaviour of a model pod."""

import asyncio
import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from conch.agent.wanted import Wanted
from conch.api.agent_report import AgentPhase
from conch.api.assignment import Assignment, Pin
from conch.api.batching import DynamicBatching
from conch.api.model import InstanceGroup, ModelConfig, ModelSource, SecretReference
from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.gateway.envoy.restricted_apis import RESTRICTED_METHODS
from conch.store import tree_digest
from conch.store.transfer import PART_BYTES
from tests.contract.conftest import FileServer, Pod
from tests.contract.models import CONFIG, Floats, classifier, scores_of, written
from tests.contract.processes import ADMIN_KEY
from tests.stores.https_server import HttpsServer, Slow
from tests.support.archives import tar, tar_gz, tar_zst, zipped
from tests.support.async_waiting import until

pytestmark = pytest.mark.contract

X = np.linspace(-2, 2, 20, dtype=np.float32).reshape(5, 4)
AGENT_MIB_MOST = 100
PACKINGS = {"m.tar.gz": tar_gz, "m.tar.zst": tar_zst, "m.zip": zipped}


def infer_grpc(pod: Pod, name: str = "classifier") -> Floats:
    client = triton_grpc.InferenceServerClient(f"127.0.0.1:{pod.triton.grpc}")
    try:
        tensor = triton_grpc.InferInput("x", list(X.shape), "FP32")
        tensor.set_data_from_numpy(X)
        return np.asarray(client.infer(name, [tensor]).as_numpy("scores"))
    finally:
        client.close()


async def infer_http(pod: Pod, name: str = "classifier") -> Floats:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": X.shape, "data": X.flatten().tolist()}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{pod.triton.http}/v2/models/{name}/infer", json=body) as response,
    ):
        answer = await response.json()
        assert response.status == 200, answer
        (output,) = answer["outputs"]
        return np.asarray(output["data"], dtype=np.float32).reshape(output["shape"])


def loads(pod: Pod) -> int:
    """How often the agent has loaded something, by its own log over all its lives."""
    return sum(event.get("step") == "Load" for event in pod.agent.events())


async def test_a_bare_onnx_is_fetched_loaded_and_answers_as_onnxruntime_does(pod: Pod, files: FileServer) -> None:
    model = files.files["/m/model.onnx"] = classifier()
    pod.agent.assign(files.assignment("/m/model.onnx?signature=secret"))
    started = time.monotonic()
    await pod.start()
    report = await pod.agent.until_phase(AgentPhase.READY)
    seconds = time.monotonic() - started
    assert (report.revision, report.reason, report.fetched_bytes) == ("r1", None, len(model))
    np.testing.assert_allclose(infer_grpc(pod), scores_of(model, X), rtol=1e-5)
    np.testing.assert_allclose(await infer_http(pod), scores_of(model, X), rtol=1e-5)
    resident = pod.agent.resident_mib()
    print(f"\nagent: {resident:.0f} MiB resident after serving; both processes started -> Ready {seconds:.2f} s")
    assert resident <= AGENT_MIB_MOST
    log = pod.agent.log.read_text()
    assert "secret" not in log
    assert ADMIN_KEY not in log


@pytest.mark.parametrize("packing", ["m.tar.gz", "m.tar.zst", "m.zip"])
async def test_a_repository_archive_with_its_digest_and_overrides(
    pod: Pod, files: FileServer, tmp_path: Path, packing: str
) -> None:
    model = classifier()
    tree = tmp_path / "tree"
    content = {
        "models/classifier/config.pbtxt": CONFIG.encode() + b'model_warmup { name: "w" batch_size: 1 }',
        "models/classifier/1/model.onnx": classifier(9),
        "models/classifier/2/model.onnx": model,
        "models/other/1/model.onnx": b"x",
    }
    for name, data in content.items():
        written(tree / name, data)
    files.files[f"/{packing}"] = PACKINGS[packing](content)
    config = ModelConfig(
        max_batch_size=8,
        dynamic_batching=DynamicBatching(max_queue_size=7),
        instance_groups=(InstanceGroup(count=2),),
        parameters={"intra_op_thread_count": "1"},
    )
    pod.agent.assign(files.assignment(f"/{packing}", version=2, digest=tree_digest(tree), config=config))
    await pod.start()
    assert (await pod.agent.until_phase(AgentPhase.READY)).digest == tree_digest(tree)
    np.testing.assert_allclose(infer_grpc(pod), scores_of(model, X), rtol=1e-5)
    client = triton_grpc.InferenceServerClient(f"127.0.0.1:{pod.triton.grpc}")
    headers = {"triton-grpc-protocol-conch-admin-key": ADMIN_KEY}
    running = client.get_model_config("classifier", headers=headers).config
    index = client.get_model_repository_index(headers=headers).models
    client.close()
    assert (running.max_batch_size, running.dynamic_batching.default_queue_policy.max_queue_size) == (8, 7)
    assert ([g.count for g in running.instance_group], list(running.model_warmup)) == ([2], [])
    assert [(m.name, m.version, m.state) for m in index] == [("classifier", "2", "READY")]


async def test_a_claim_is_served_in_place(pod: Pod, files: FileServer) -> None:
    model = classifier()
    written(pod.agent.claim / "models" / "classifier" / "1" / "model.onnx", model)
    written(pod.agent.claim / "models" / "classifier" / "config.pbtxt", CONFIG.encode())
    pod.agent.assign(
        files.assignment("/").model_copy(update={"source": ModelSource(uri="pvc://models-claim/models/classifier")})
    )
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    (served,) = (pod.agent.volume / "repository" / "classifier" / "1").iterdir()
    assert served.readlink() == pod.agent.claim / "models" / "classifier" / "1" / "model.onnx", "no copy"
    np.testing.assert_allclose(infer_grpc(pod), scores_of(model, X), rtol=1e-5)


@pytest.mark.parametrize("repair", ["in place", "elsewhere"])
async def test_a_model_that_triton_refuses_is_reported_in_tritons_words_and_heals(
    pod: Pod, files: FileServer, repair: str
) -> None:
    files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": b"this is no graph"})
    pod.agent.assign(files.assignment("/m.tar.gz"))
    await pod.start()
    report = await pod.agent.until_phase(AgentPhase.FAILED)
    assert report.reason is Reason.MODEL_LOAD_FAILED
    assert "INVALID_PROTOBUF" in report.message or "Protobuf parsing failed" in report.message, report.message
    if repair == "in place":
        files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": classifier()})
    else:
        files.files["/good.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": classifier()})
        pod.agent.assign(files.assignment("/good.tar.gz", revision="r2"))
    assert (await pod.agent.until_phase(AgentPhase.READY)).revision == ("r1" if repair == "in place" else "r2")
    assert infer_grpc(pod).shape == (5, 3)


async def test_a_wrong_digest_loads_nothing(pod: Pod, files: FileServer) -> None:
    files.files["/model.onnx"] = classifier()
    pod.agent.assign(files.assignment("/model.onnx", digest=f"sha256:{'0' * 64}"))
    await pod.start()
    report = await pod.agent.until_phase(AgentPhase.FAILED)
    assert report.reason is Reason.DIGEST_MISMATCH
    assert list((pod.agent.volume / "repository").iterdir()) == []

    async def tried_again() -> bool | None:
        return len([event for event in pod.agent.events() if event.get("event") == "failed"]) >= 1 or None

    await until("another try", tried_again)
    looked_again = files.looks["/model.onnx"] + 2

    async def looked() -> bool | None:
        return files.looks["/model.onnx"] >= looked_again or None

    await until("another look", looked)
    assert (loads(pod), files.requests["/model.onnx"]) == (0, 1), "the same files are not fetched again and again"


async def test_an_agent_killed_while_it_fetches_goes_on_where_it_was(pod: Pod, tmp_path: Path) -> None:
    model, noise = classifier(), random.Random(1).randbytes(48 << 20)
    content = tar({"classifier/config.pbtxt": CONFIG.encode(), "classifier/1/model.onnx": model, "noise": noise})
    with HttpsServer(tmp_path / "store") as store:
        store.put("m.tar", content)
        store.fail("m.tar", Slow(bytes_per_second=len(content) // 4))
        pod.agent.credentials.mkdir()
        (pod.agent.credentials / "ca.crt").write_text(store.ca_certificate)
        source = ModelSource(uri=store.uri("m.tar"), credentials_secret_ref=SecretReference(name="authority"))
        policy = SourcePolicy(private_hosts=("127.0.0.1",))
        wanted = Assignment(revision="r1", name="classifier", version=1, source=source, source_policy=policy)
        pod.agent.assign(wanted)
        await pod.start()
        journal = pod.agent.volume / "partial" / Wanted.of(wanted).fetch_key / "journal"

        async def part_arrived() -> bool | None:
            return (journal.exists() and len(journal.read_text().split()) > 0) or None

        await until("the first part", part_arrived)
        pod.agent.stop(signal.SIGKILL)
        store.heal("m.tar")
        store.log.clear()
        pod.agent.start(pod.triton)
        await pod.agent.until_phase(AgentPhase.READY)
        # By its end: one that is resumed is the same part.
        asked = {entry.range.rpartition("-")[2] for entry in store.log if entry.range and entry.range != "bytes=0-0"}
        parts = -(-len(content) // PART_BYTES)
        assert 0 < len(asked) < parts, asked
    np.testing.assert_allclose(infer_grpc(pod), scores_of(model, X), rtol=1e-5)


async def test_nothing_is_loaded_before_it_is_pinned_and_nothing_else_after(pod: Pod, files: FileServer) -> None:
    files.files["/model.onnx"] = classifier(1)
    pod.agent.assign(files.assignment("/model.onnx"))
    await pod.start(pins=False)
    report = await pod.agent.until_phase(AgentPhase.FETCHED)
    assert report.digest
    assert await pod.agent.tell("r1", Pin(digest=report.digest), key="not the key") == 401
    other = Pin(digest=f"sha256:{'0' * 64}", resolved="etag before")
    assert await pod.agent.tell("r1", other) == 204
    report = await pod.agent.until_phase(AgentPhase.FAILED)
    assert (report.reason, "etag before" in report.message) == (Reason.SOURCE_CHANGED, True)
    assert loads(pod) == 0
    # The kubelet brings the assignment with another pin: that is what counts from then on.
    assert report.digest
    pin = Pin(digest=report.digest, resolved=report.resolved)
    pod.agent.assign(files.assignment("/model.onnx", pin=pin))
    await pod.agent.until_phase(AgentPhase.READY)
    assert (loads(pod), files.requests["/model.onnx"]) == (1, 1)


async def test_a_missing_source_is_reported_and_heals_when_it_appears(pod: Pod, files: FileServer) -> None:
    pod.agent.assign(files.assignment("/model.onnx"))
    await pod.start()
    report = await pod.agent.until_phase(AgentPhase.FAILED)
    assert (report.reason, "/model.onnx" in report.message) == (Reason.SOURCE_NOT_FOUND, True)
    files.files["/model.onnx"] = classifier()
    await pod.agent.until_phase(AgentPhase.READY)


async def test_triton_killed_is_loaded_again_without_a_fetch(pod: Pod, files: FileServer) -> None:
    files.files["/model.onnx"] = classifier()
    pod.agent.assign(files.assignment("/model.onnx"))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    pod.triton.stop(signal.SIGKILL)
    await pod.agent.until(lambda report: report.phase is not AgentPhase.READY)
    started = time.monotonic()
    pod.triton.start()
    await pod.agent.until_phase(AgentPhase.READY)
    print(f"\nTriton restarted -> Ready {time.monotonic() - started:.2f} s")
    assert infer_grpc(pod).shape == (5, 3)
    assert (files.requests["/model.onnx"], loads(pod)) == (1, 2)


async def test_an_agent_killed_neither_fetches_nor_loads_again(pod: Pod, files: FileServer) -> None:
    files.files["/model.onnx"] = classifier()
    pod.agent.assign(files.assignment("/model.onnx"))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    pod.agent.stop(signal.SIGKILL)
    (pod.agent.volume / "tmp" / "left-over").mkdir()
    pod.agent.start(pod.triton)
    await pod.agent.until_phase(AgentPhase.READY)
    assert (files.requests["/model.onnx"], loads(pod)) == (1, 1)
    assert list((pod.agent.volume / "tmp").iterdir()) == []
    # The policy may change under a running pod: what is verified is not fetched again.
    policy = files.assignment("/").source_policy.model_copy(update={"allowed_hosts": ("elsewhere.example",)})
    pod.agent.assign(files.assignment("/model.onnx", source_policy=policy, revision="r2"))
    await pod.agent.until(lambda report: report.revision == "r2" and report.phase is AgentPhase.READY)
    assert (files.requests["/model.onnx"], loads(pod)) == (1, 1)


async def test_a_backend_that_is_no_longer_allowed_serves_on_and_is_not_loaded_again(
    pod: Pod, files: FileServer
) -> None:
    files.files["/model.onnx"] = classifier()
    pod.agent.assign(files.assignment("/model.onnx"))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    policy = files.assignment("/").source_policy.model_copy(update={"backends": ("tensorrt",)})
    pod.agent.assign(files.assignment("/model.onnx", source_policy=policy, revision="r2"))
    await pod.agent.until(lambda report: report.revision == "r2" and report.phase is AgentPhase.READY)
    pod.triton.stop(signal.SIGKILL)
    pod.triton.start()
    report = await pod.agent.until_phase(AgentPhase.FAILED)
    assert report.reason is Reason.MODEL_NOT_ALLOWED
    with pytest.raises(InferenceServerException):
        infer_grpc(pod)


async def test_a_new_assignment_replaces_the_model_and_removes_the_old_one(pod: Pod, files: FileServer) -> None:
    second = classifier(2)
    files.files |= {"/a/model.onnx": classifier(1), "/b/model.onnx": second}
    pod.agent.assign(files.assignment("/a/model.onnx"))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    pod.agent.assign(files.assignment("/b/model.onnx", revision="r2", version=3, name="other"))
    await pod.agent.until(lambda report: report.revision == "r2" and report.phase is AgentPhase.READY)
    np.testing.assert_allclose(infer_grpc(pod, "other"), scores_of(second, X), rtol=1e-5)

    async def tidy() -> bool | None:
        models = [entry.name for entry in (pod.agent.volume / "repository").iterdir()]
        return (models == ["other"] and len(list((pod.agent.volume / "fetched").iterdir())) == 1) or None

    await until("the old model to be gone", tidy)
    with pytest.raises(InferenceServerException):
        infer_grpc(pod)


async def test_the_gateway_keeps_away_what_triton_restricts_and_nothing_else(pod: Pod, files: FileServer) -> None:
    files.files["/model.onnx"] = classifier()
    pod.agent.assign(files.assignment("/model.onnx"))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    restricted = set()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{pod.triton.grpc}") as channel:
        for method in service.methods:
            if method.client_streaming:
                continue
            try:
                await channel.unary_unary(f"/{service.full_name}/{method.name}")(b"", timeout=60)
            except grpc.aio.AioRpcError as error:
                if "restricted" in (error.details() or ""):
                    restricted.add(method.name)
    assert restricted == set(RESTRICTED_METHODS)


async def test_the_same_version_from_other_files_is_really_loaded(pod: Pod, files: FileServer) -> None:
    second = classifier(2)
    files.files |= {"/a/model.onnx": classifier(1), "/b/model.onnx": second}
    pod.agent.assign(files.assignment("/a/model.onnx"))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    pod.agent.assign(files.assignment("/b/model.onnx", revision="r2"))
    await pod.agent.until(lambda report: report.revision == "r2" and report.phase is AgentPhase.READY)
    np.testing.assert_allclose(infer_grpc(pod), scores_of(second, X), rtol=1e-5)


async def test_status_needs_the_key_and_healthz_does_not(pod: Pod) -> None:
    pod.agent.start(pod.triton)
    await pod.agent.until_phase(AgentPhase.STARTING)
    base = f"http://127.0.0.1:{pod.agent.port}"
    async with aiohttp.ClientSession() as session:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {ADMIN_KEY}"}):
            async with session.get(f"{base}/status", headers=headers) as response:
                assert response.status == 401

        async def healthy() -> bool | None:
            async with session.get(f"{base}/healthz") as response:
                return response.status == 200 or None

        await until("healthz", healthy)
    assert pod.agent.stop() < 15


async def test_tritons_repository_api_is_closed_without_the_key(pod: Pod, files: FileServer) -> None:
    files.files["/model.onnx"] = classifier()
    pod.agent.assign(files.assignment("/model.onnx"))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    base = f"http://127.0.0.1:{pod.triton.http}/v2"
    calls = [("POST", "/repository/models/classifier/unload"), ("POST", "/repository/index"), ("GET", "/logging")]
    calls += [("GET", "/models/classifier/config"), ("GET", "/systemsharedmemory/status"), ("GET", "/trace/setting")]
    async with aiohttp.ClientSession() as session:
        for method, path in calls:
            for headers in ({}, {"conch-admin-key": "wrong"}):
                async with session.request(method, base + path, headers=headers) as response:
                    assert response.status in (401, 403), (path, response.status, await response.text())
    for client in _grpc(pod):
        with pytest.raises(InferenceServerException, match=r"restricted|UNAVAILABLE"):
            client.unload_model("classifier")
        with pytest.raises(InferenceServerException, match=r"restricted|UNAVAILABLE"):
            client.get_model_repository_index(headers={"triton-grpc-protocol-conch-admin-key": "wrong"})
    assert infer_grpc(pod).shape == (5, 3)


def _grpc(pod: Pod) -> Iterator[triton_grpc.InferenceServerClient]:
    client = triton_grpc.InferenceServerClient(f"127.0.0.1:{pod.triton.grpc}")
    try:
        yield client
    finally:
        client.close()


async def test_an_invalid_assignment_is_reported_and_its_repair_acted_on(pod: Pod, files: FileServer) -> None:
    pod.agent.assignment.write_text(json.dumps({"revision": "r1", "uri": "https://h/x?token=secret"}))
    await pod.start()
    report = await pod.agent.until_phase(AgentPhase.FAILED)
    assert (report.reason, "version: Field required" in report.message) == (Reason.INVALID_SPEC, True)
    assert "secret" not in report.message
    files.files["/model.onnx"] = classifier()
    pod.agent.assign(files.assignment("/model.onnx"))
    await pod.agent.until_phase(AgentPhase.READY)
    await asyncio.to_thread(pod.agent.stop)
