"""`conch port-forward` and `conch infer` from end to end, with an API server and a kubectl that do as they are told."""

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from conch.cli import app
from conch.client import infer, port_forward, waiting
from conch.kube import resources
from conch.kube.errors import ApiError
from conch.kube.resources import Resource
from conch.triton.answers import HEADER_LENGTH
from tests.cluster.ports import free_port
from tests.stores import tls
from tests.support.waiting import until
from tests.unit.test_client_target import STABLE, pod
from tests.unit.test_why_chain import body

KUBECTL = """#!{python} -SE
import os, signal, sys, time
folder = os.environ["KUBECTL_FOLDER"]
def log(words):
    with open(folder + "/log", "a") as out:
        out.write(words + "\\n")
def end(*_):
    log("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
log(" ".join(sys.argv[1:]))
with open(folder + "/does") as does:
    what = does.read().splitlines()
pairs = [each for each in sys.argv if ":" in each]
for line in what[1:]:
    print(line, file=sys.stderr, flush=True)
if what[0] == "refuses":
    sys.exit(1)
for pair in pairs[:1] if what[0] == "misses-a-port" else pairs:
    local, remote = pair.split(":")
    local = local or os.environ["KUBECTL_FREE_PORT"]
    print("Forwarding from 127.0.0.1:%s -> %s" % (local, remote), flush=True)
while True:
    time.sleep(0.01)
    if what[0] == "dies" and os.path.exists(folder + "/now"):
        os.remove(folder + "/now")
        print("error: lost connection to pod", file=sys.stderr, flush=True)
        sys.exit(1)
"""


@dataclass
class Cluster:
    """What the API server knows, and what kubectl does."""

    folder: Path
    owner: dict[str, Any] = field(default_factory=lambda: body(stable=STABLE))
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    gateways: list[dict[str, Any]] = field(default_factory=list)
    contexts: list[str | None] = field(default_factory=list)

    def kubectl(self, does: str, *says: str) -> None:
        (self.folder / "does").write_text("\n".join((does, *says)))

    @property
    def log(self) -> list[str]:
        """kubectl's arguments and ends."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    async def connect(self, context: str | None) -> tuple["Cluster", str]:
        self.contexts.append(context)
        return self, "team-a"

    async def close(self) -> None:
        """There is no connection."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        if resource is resources.MODEL_DEPLOYMENTS and name == "sentiment":
            return self.owner
        if resource is resources.PODS and name in self.pods:
            return self.pods[name]
        raise ApiError(404, "NotFound", f"{name} not found", what=namespace)

    async def pages(self, resource: Resource, **where: Any) -> AsyncIterator[dict[str, Any]]:
        if resource is not resources.PODS:
            yield {"items": []}
        elif where["namespace"] == "team-a":
            yield {"items": list(self.pods.values())}
        elif "component=gateway" in where["label_selector"]:
            yield {"items": self.gateways}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL.format(python=sys.executable))
    program.chmod(0o755)
    made = Cluster(folder=tmp_path, pods={"a": pod("a"), "b": pod("b")})
    made.kubectl("forwards")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBECTL_FOLDER", str(tmp_path))
    monkeypatch.setattr(infer, "connect_as_user", made.connect)
    monkeypatch.setattr(port_forward, "connect_as_user", made.connect)
    monkeypatch.setattr(port_forward, "LOOK_SECONDS", 0.02)
    return made


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, args)))


class Forwarding:
    """A running `conch port-forward sentiment`, and what it prints."""

    def __init__(self, capsys: pytest.CaptureFixture[str], **changes: Any) -> None:
        options: dict[str, Any] = {
            "namespace": None,
            "context": None,
            "http_port": free_port(),
            "grpc_port": free_port(),
            "via_gateway": False,
            "gateway_namespace": "conch-system",
        }
        self.options = options | changes
        self._capsys = capsys
        self._output = self._errors = ""

    @property
    def output(self) -> str:
        """So far."""
        self._read()
        return self._output

    @property
    def errors(self) -> str:
        """So far."""
        self._read()
        return self._errors

    def _read(self) -> None:
        out, err = self._capsys.readouterr()
        self._output, self._errors = self._output + out, self._errors + err

    async def until_forwarded(self, name: str) -> None:
        """Wait until both ports lead to a pod."""
        await _until(lambda: self.output.count(f"-> pod {name} ") >= 2, self)

    async def __aenter__(self) -> "Forwarding":
        self.task = asyncio.create_task(port_forward.port_forward("sentiment", **self.options))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def test_both_ports_lead_to_a_pod_and_kubectl_ends_with_it(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Forwarding(capsys, context="blue") as forwarding:
        await forwarding.until_forwarded("a")
    http, grpc = forwarding.options["http_port"], forwarding.options["grpc_port"]
    assert forwarding.output.splitlines() == [
        f"http://127.0.0.1:{http} -> pod a (version 3)",
        f"grpc://127.0.0.1:{grpc} -> pod a (version 3)",
    ]
    assert cluster.log == [
        f"--context=blue port-forward --namespace=team-a --address=127.0.0.1 pod/a {http}:8000 {grpc}:8001",
        "ended",
    ]
    assert cluster.contexts == ["blue"]


async def test_via_gateway_both_lead_to_the_objects_port(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.owner, cluster.gateways = body(gateway={"port": 10_007}), [pod("gateway-1")]
    cluster.pods = {"gateway-1": cluster.gateways[0]}
    async with Forwarding(capsys, via_gateway=True, namespace="team-a") as forwarding:
        await forwarding.until_forwarded("gateway-1")
    assert "-> pod gateway-1 (gateway)" in forwarding.output
    assert cluster.log[0].startswith("port-forward --namespace=conch-system --address=127.0.0.1 pod/gateway-1 ")
    assert cluster.log[0].count(":10007") == 2


async def test_over_tls_it_says_by_which_name_the_gateway_is_known(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://sentiment.team-a.svc:8000"
    cluster.owner, cluster.gateways = body(gateway={"port": 10_007}, url=url), [pod("gateway-1")]
    cluster.pods = {"gateway-1": cluster.gateways[0]}
    async with Forwarding(capsys, via_gateway=True, namespace="team-a") as forwarding:
        await forwarding.until_forwarded("gateway-1")
        await _until(lambda: "Its certificate is for sentiment.team-a.svc" in forwarding.output, forwarding)
    port = forwarding.options["http_port"]
    assert f"https://127.0.0.1:{port} -> pod gateway-1" in forwarding.output
    assert f"curl --connect-to sentiment.team-a.svc::127.0.0.1:{port} " in forwarding.output


async def test_when_kubectl_loses_the_pod_another_one_is_taken(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.kubectl("dies")
    monkeypatch.setenv("KUBECTL_FREE_PORT", "12345")
    async with Forwarding(capsys, http_port=0) as forwarding:
        await forwarding.until_forwarded("a")
        (cluster.folder / "now").touch()
        await forwarding.until_forwarded("b")
    assert "the connection to pod a is lost: error: lost connection to pod" in forwarding.errors
    assert forwarding.output.count("http://127.0.0.1:12345 -> ") == 2, "the same local port"


@pytest.mark.parametrize("how", ["deleted", "being deleted", "replaced"])
async def test_when_the_pod_goes_away_another_one_is_taken(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    async with Forwarding(capsys) as forwarding:
        await forwarding.until_forwarded("a")
        match how:
            case "deleted":
                del cluster.pods["a"]
            case "being deleted":
                cluster.pods["a"] = pod("a", deleting=True)
            case "replaced":
                cluster.pods["a"]["metadata"]["uid"] = "another"
                cluster.pods["a"]["status"]["conditions"] = []
        await forwarding.until_forwarded("b")
    assert "the connection to pod a is lost" in forwarding.errors
    assert cluster.log.count("ended") == 2


async def test_while_no_pod_is_ready_it_waits_and_says_so_once(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Forwarding(capsys) as forwarding:
        await forwarding.until_forwarded("a")
        cluster.pods = {"b": pod("b", ready=False)}
        await _until(lambda: "Waiting for one." in forwarding.errors, forwarding)
        cluster.pods = {"c": pod("c")}
        await forwarding.until_forwarded("c")
    assert forwarding.errors.count("No pod of team-a/sentiment is ready") == 1


async def test_an_object_that_is_deleted_meanwhile_ends_it(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Forwarding(capsys) as forwarding:
        await forwarding.until_forwarded("a")
        cluster.pods = {}
        monkeypatch.setattr(cluster, "get", absent)
        async with asyncio.timeout(30):
            await asyncio.wait({forwarding.task})
    assert "There is no ModelDeployment sentiment in namespace team-a" in str(forwarding.task.exception())


async def absent(_resource: Resource, namespace: str, name: str) -> dict[str, Any]:
    raise ApiError(404, "NotFound", f"{name} not found", what=namespace)


@pytest.mark.parametrize(
    ("does", "says", "words"),
    [
        ("refuses", 'error: pods "a" is forbidden: User "jane" cannot', 'port-forward: error: pods "a" is forbidden'),
        ("refuses", "", "it ended without a word"),
        ("misses-a-port", "Unable to listen on port 8001: in use", "Unable to listen on port 8001: in use"),
    ],
)
def test_what_kubectl_refuses_is_told_in_its_words(cluster: Cluster, does: str, says: str, words: str) -> None:
    cluster.kubectl(does, says)
    done = invoke("port-forward", "sentiment", "--http-port", str(free_port()), "--grpc-port", str(free_port()))
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_local_port_that_is_taken_is_told_with_its_option(cluster: Cluster) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = invoke("port-forward", "sentiment", "--http-port", str(free_port()), "--grpc-port", str(port))
    assert (done.exit_code, cluster.log) == (2, [])
    assert (
        f"The local port {port} cannot be had (Address already in use); choose another with --grpc-port." in done.stderr
    )
    both = invoke("port-forward", "sentiment", "--http-port", "9000", "--grpc-port", "9000")
    assert "Both protocols cannot have the local port 9000." in both.stderr


def test_without_kubectl_on_the_path_it_says_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cluster.folder))
    done = invoke("infer", "sentiment")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "kubectl cannot be run (No such file or directory)" in done.stderr


@pytest.mark.parametrize("command", ["infer", "port-forward"])
def test_no_such_object_and_nothing_ready_are_told(cluster: Cluster, command: str) -> None:
    there_is_none = invoke(command, "other")
    assert (there_is_none.exit_code, there_is_none.stdout) == (2, "")
    assert "There is no ModelDeployment other in namespace team-a" in there_is_none.stderr
    cluster.pods = {}
    nothing_ready = invoke(command, "sentiment")
    assert nothing_ready.exit_code == 2
    assert "conch why sentiment -n team-a tells why" in nothing_ready.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_kubectl_too(cluster: Cluster, number: int) -> None:
    def interrupt() -> None:
        until(lambda: cluster.log, "kubectl")
        os.kill(os.getpid(), number)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    done = invoke("port-forward", "sentiment", "--http-port", str(free_port()), "--grpc-port", str(free_port()))
    interrupting.join()
    assert (done.exit_code, done.stderr) == (128 + number, "")
    assert cluster.log[-1] == "ended"


class Model:
    """A server of the protocol with one model, which doubles x; `status` other than 200 refuses."""

    def __init__(self) -> None:
        self.status = 200
        self.release = threading.Event()
        self.release.set()
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []

    async def metadata(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        rows = {
            part: [{"name": name, "datatype": "FP32", "shape": [-1, 2]}]
            for part, name in (("inputs", "x"), ("outputs", "y"))
        }
        return web.json_response({"name": "sentiment"} | rows)

    async def infer(self, request: web.Request) -> web.Response:
        content = await request.read()
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        await asyncio.to_thread(self.release.wait, 30)
        if self.status != 200:
            return web.Response(status=self.status, text="upstream connect error", headers={"Retry-After": "1"})
        x = np.frombuffer(content[int(request.headers[HEADER_LENGTH]) :], np.float32)
        row = {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
        head = json.dumps({"model_name": "sentiment", "model_version": "3", "outputs": [row]}).encode()
        return web.Response(body=head + (x * 2).tobytes(), headers={HEADER_LENGTH: str(len(head))})


@contextmanager
def serving(model: Model, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """In a thread of its own; gives the port."""
    loop, ports = asyncio.new_event_loop(), list[int]()
    begun = threading.Event()

    async def serve() -> web.AppRunner:
        application = web.Application()
        application.router.add_get("/v2/models/sentiment", model.metadata)
        application.router.add_post("/v2/models/sentiment/infer", model.infer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        ports.append(runner.addresses[0][1])
        begun.set()
        return runner

    async def end(runner: web.AppRunner) -> None:
        await runner.cleanup()
        # Connections close their sockets in the rounds after that.
        for _ in range(5):
            await asyncio.sleep(0)

    def work() -> None:
        runner = loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(end(runner))
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "x.json"
    path.write_text('{"x": [[1, 2.5]]}')
    return path


def test_infer_goes_through_kubectl_to_a_pod(cluster: Cluster, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    with serving(model) as port:
        monkeypatch.setenv("KUBECTL_FREE_PORT", str(port))
        done = invoke("infer", "sentiment", "--input", inputs)
    assert done.exit_code == 0, done.output
    head, *lines = done.stdout.splitlines()
    assert head.startswith("sentiment version 3 answered in ")
    assert head.endswith(" ms (http, pod a, version 3)")
    assert lines == ["y FP32 [1, 2]", "  [[2., 5.]]"]
    assert cluster.log == ["port-forward --namespace=team-a --address=127.0.0.1 pod/a :8000", "ended"]
    assert model.asked == ["/v2/models/sentiment"]


def test_infer_goes_through_a_gateway(cluster: Cluster, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.owner, cluster.gateways, cluster.pods = body(gateway={"port": 10_007}), [pod("gateway-1")], {}
    with serving(Model()) as port:
        monkeypatch.setenv("KUBECTL_FREE_PORT", str(port))
        done = invoke("infer", "sentiment", "--input", inputs, "--via-gateway", "--gateway-namespace", "elsewhere")
    assert done.exit_code == 0, done.output
    assert " ms (http, pod gateway-1, gateway)" in done.stdout
    assert cluster.log[0] == "port-forward --namespace=elsewhere --address=127.0.0.1 pod/gateway-1 :10007"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("s3cret-key-of-a-client\n")
    return path


def test_infer_verifies_a_gateway_by_the_objects_name_and_shows_it_the_key(
    cluster: Cluster, inputs: Path, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = (tls.issue(tmp_path / name, f"{name}.team-a.svc") for name in ("sentiment", "other"))
    own_ca, other_ca = tmp_path / "own.crt", tmp_path / "other.crt"
    own_ca.write_text(own.ca_certificate)
    other_ca.write_text(other.ca_certificate)
    url = "https://sentiment.team-a.svc:8000"
    cluster.owner, cluster.gateways = body(gateway={"port": 10_007}, url=url), [pod("gateway-1")]
    model = Model()
    command = ("infer", "sentiment", "--input", inputs, "--via-gateway", "--api-key-file", key_file)
    with serving(model, own.server_context()) as port:
        monkeypatch.setenv("KUBECTL_FREE_PORT", str(port))
        done = invoke(*command, "--ca-certificate", own_ca)
        assert done.exit_code == 0, done.output
        assert model.headers[-1]["authorization"] == "Bearer s3cret-key-of-a-client"
        asked = len(model.headers)
        refused = invoke(*command, "--ca-certificate", other_ca)
        assert (refused.exit_code, "certificate" in refused.stderr) == (2, True), refused.output
    with serving(model, other.server_context()) as port:
        monkeypatch.setenv("KUBECTL_FREE_PORT", str(port))
        refused = invoke(*command, "--ca-certificate", other_ca)
        assert (refused.exit_code, "Hostname mismatch" in refused.stderr) == (2, True), refused.output
    assert len(model.headers) == asked, "nothing is said to a server that is not known"


def test_infer_speaks_tls_to_an_address_and_takes_the_key_from_the_environment(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCH_API_KEY", "key-from-the-environment")
    server = tls.issue(tmp_path / "pki", "127.0.0.1")
    authority = tmp_path / "ca.crt"
    authority.write_text(server.ca_certificate)
    model = Model()
    with serving(model, server.server_context()) as port:
        command = ("infer", "sentiment", "--input", inputs, "--address", f"127.0.0.1:{port}")
        assert invoke(*command, "--ca-certificate", authority).exit_code == 0
        assert model.headers[-1]["authorization"] == "Bearer key-from-the-environment"
        assert "certificate" in invoke(*command, "--tls").stderr, "this machine does not know the authority"


def test_infer_tells_an_address_no_key_in_clear_text_but_one_that_is_named(inputs: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "batch.key"
    key_file.write_text("key-of-batch-0123456789\nnamespaces: team-a team-b\n")
    model = Model()
    with serving(model) as port, pytest.MonkeyPatch.context() as environment:
        environment.setenv("CONCH_API_KEY", "key-from-the-environment")
        command = ("infer", "sentiment", "--input", inputs, "--address", f"127.0.0.1:{port}")
        assert invoke(*command).exit_code == 0
        assert not [headers for headers in model.headers if "authorization" in headers]
        assert invoke(*command, "--api-key-file", key_file).exit_code == 0
        assert model.headers[-1]["authorization"] == "Bearer key-of-batch-0123456789", "its first line"


def test_a_pod_of_the_model_is_not_told_the_key(
    cluster: Cluster, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCH_API_KEY", "key-from-the-environment")
    model = Model()
    with serving(model) as port:
        monkeypatch.setenv("KUBECTL_FREE_PORT", str(port))
        assert invoke("infer", "sentiment", "--input", inputs).exit_code == 0
    assert cluster.pods
    assert not [headers for headers in model.headers if "authorization" in headers]


def test_files_that_hold_no_certificate_and_no_key_are_told(inputs: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("")
    command = ("infer", "sentiment", "--input", inputs, "--address", "127.0.0.1:1")
    assert "holds no certificates in PEM" in invoke(*command, "--ca-certificate", empty).stderr
    assert "is empty" in invoke(*command, "--api-key-file", empty).stderr
    (tmp_path / "two").write_text("one two")
    assert "holds characters that no key has" in invoke(*command, "--api-key-file", tmp_path / "two").stderr


def test_a_request_that_takes_long_is_said_to_wait(
    cluster: Cluster, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()
    model.release.clear()
    monkeypatch.setattr(waiting, "SAID_AFTER_SECONDS", 0.0)

    def say_and_release(text: str, *, err: bool) -> None:
        assert err
        said.append(text)
        if text.startswith("waiting for the answer"):
            model.release.set()

    said: list[str] = []
    with serving(model) as port:
        monkeypatch.setattr("conch.client.waiting.typer.echo", say_and_release)
        monkeypatch.setattr(infer, "_show", lambda told, _output: said.append(told.protocol))
        done = invoke("infer", "sentiment", "--input", inputs, "--address", f"127.0.0.1:{port}")
    assert done.exit_code == 0, done.output
    assert said[-2:] == [f"waiting for the answer of sentiment (127.0.0.1:{port})", "http"]
    assert cluster.contexts == [], "an address is asked directly"


def test_a_gateways_refusal_is_printed_as_it_is(inputs: Path) -> None:
    model = Model()
    model.status = 503
    with serving(model) as port:
        done = invoke("infer", "sentiment", "--input", inputs, "--address", f"127.0.0.1:{port}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "503 Service Unavailable: upstream connect error\n"


def test_a_golden_set_that_differs_exits_with_1(tmp_path: Path) -> None:
    golden = tmp_path / "golden.json"
    golden.write_text(json.dumps({"data": [{"x": [1, 2]}], "validation_data": [{"y": [2, 5]}]}))
    with serving(Model()) as port:
        done = invoke("infer", "sentiment", "--golden", golden, "--address", f"127.0.0.1:{port}", "-o", "json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["golden"]["asExpected"], told["golden"]["outputs"][0]["passed"]) == (False, False)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--address", "a:1", "-n", "team-a"], "--address asks a server directly"),
        (["--address", "a:1", "--via-gateway"], "--address asks a server directly"),
        (["--tls"], "--tls is for --address"),
        (["--ca-certificate", __file__], "A pod of the model knows neither TLS nor keys"),
        (["--sample", "1"], "--sample chooses from the set that --golden names"),
        (["-o", "yaml"], "--output is text, json or a FILE.npz to write, not 'yaml'"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(args: list[str], words: str) -> None:
    done = invoke("infer", "sentiment", *args)
    assert done.exit_code == 2
    assert words in done.stderr


def test_input_and_golden_together_are_refused(inputs: Path) -> None:
    done = invoke("infer", "sentiment", "--input", inputs, "--golden", inputs)
    assert "Give --input or --golden, not both." in done.stderr


@pytest.mark.parametrize("command", ["infer", "port-forward"])
def test_help_has_examples(command: str) -> None:
    shown = invoke(command, "--help").stdout
    assert "Examples:" in shown
    assert f"conch {command} sentiment" in shown


async def _until(holds: Any, forwarding: Forwarding) -> None:
    try:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.01)
                if forwarding.task.done():
                    forwarding.task.result()
    except TimeoutError:
        raise AssertionError(f"in vain: {forwarding.output!r} {forwarding.errors!r}") from None
