"""A real API server with Conch's CRD, shared by the tests of this folder; each test has a namespace of its own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster.apiserver import ApiServer
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is an integration test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("integration")


@pytest.fixture(scope="session")
def api() -> Iterator[ApiServer]:
    """An API server that knows ModelDeployments."""
    with ApiServer(controllers=True) as server:
        install_crd(server)
        server.kubectl("create", "namespace", "conch-system")
        yield server


def install_crd(server: ApiServer) -> None:
    """The CRD as `conch crd` prints it, established."""
    crd = subprocess.run([Path(sys.executable).with_name("conch"), "crd"], capture_output=True, text=True, check=True)
    applied = server.kubectl("apply", "--server-side", "-f", "-", input=crd.stdout)
    assert "Warning" not in applied.stderr, applied.stderr

    def established() -> bool:
        # `kubectl wait` fails for an object that has no conditions yet.
        conditions = server.get("crd", "modeldeployments.conch.dev").get("status", {}).get("conditions") or ()
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    until(established, "the CRD to be established")
    # Discovery lists it a moment later.
    until(lambda: server.kubectl("get", "mdep", "-A", check=False).returncode == 0, "ModelDeployments to be served")


@pytest.fixture(scope="session")
def operator(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator that leads."""
    with OperatorProcess(api.kubeconfig, tmp_path_factory.mktemp("operator")) as process:
        until(process.leads, "the operator to lead")
        yield process


@pytest.fixture
def namespace(api: ApiServer) -> Iterator[str]:
    """An empty namespace."""
    name = f"test-{uuid4().hex[:8]}"
    api.kubectl("create", "namespace", name)
    yield name
    api.kubectl("delete", "namespace", name, "--wait=false")


def model_deployment(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """A ModelDeployment that is valid, with parts of its spec replaced."""
    model = {"version": 3, "source": {"uri": "https://models.example.com/m.onnx"}}
    return {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": model, **spec},
    }
