"""An API server on which the rendered chart has been applied, for tests of its RBAC and its admission policies."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import yaml

from tests import generate
from tests.cluster.apiserver import ApiServer
from tests.support.waiting import until

OPERATOR: Final = f"system:serviceaccount:{generate.NAMESPACE}:conch-operator"
GATEWAY: Final = f"system:serviceaccount:{generate.NAMESPACE}:conch-gateway"
_POLICIES_EFFECTIVE_SECONDS: Final = 120

Answer = subprocess.CompletedProcess[str]


class InstalledChart:
    """The API server and how tests speak to it: as somebody, with objects instead of files."""

    def __init__(self, api: ApiServer) -> None:
        self.api = api

    def run(self, *arguments: str, by: str = "", objects: Mapping[str, Any] | None = None) -> Answer:
        """kubectl by this user (default: the administrator); never raises."""
        who = [f"--as={by}"] if by else []
        # JSON is YAML that kubectl takes from `-f -`.
        return self.api.kubectl(*arguments, *who, input=json.dumps(objects) if objects else None, check=False)

    def must(self, *arguments: str, by: str = "", objects: Mapping[str, Any] | None = None) -> str:
        """As `run`; fails with kubectl's words when it does."""
        answer = self.run(*arguments, by=by, objects=objects)
        assert answer.returncode == 0, f"kubectl {' '.join(arguments)}: {answer.stderr}"
        return answer.stdout

    def apply(self, objects: Mapping[str, Any], *, by: str = "") -> Answer:
        """Server-side apply, as the operator does it."""
        return self.run(
            *("apply", "--server-side", "--force-conflicts", "--field-manager=test", "-f", "-"), by=by, objects=objects
        )

    def grant(self, user: str, namespace: str, *rules: Mapping[str, Any]) -> None:
        """Give a user a role of these rules in a namespace; effective on return."""
        role = user.replace(":", "-")
        meta = {"name": role, "namespace": namespace}
        api = "rbac.authorization.k8s.io"
        subject = {"kind": "User", "name": user, "apiGroup": api}
        self.must(
            *("apply", "-f", "-"),
            objects={
                "apiVersion": "v1",
                "kind": "List",
                "items": [
                    {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": list(rules)},
                    {
                        "apiVersion": f"{api}/v1",
                        "kind": "RoleBinding",
                        "metadata": meta,
                        "roleRef": {"apiGroup": api, "kind": "Role", "name": role},
                        "subjects": [subject],
                    },
                ],
            },
        )

        last = rules[-1]
        resource, _, subresource = last["resources"][-1].partition("/")
        # Not by `kubectl auth can-i`: it forgets the group of a kind that the API server does not have.
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "resourceAttributes": {
                    "namespace": namespace,
                    "verb": last["verbs"][-1],
                    "group": last["apiGroups"][-1],
                    "resource": resource,
                    "subresource": subresource,
                    "name": "".join(last.get("resourceNames", ())[-1:]),
                },
            },
        }
        asked = ("create", "-f", "-", "-o", "jsonpath={.status.allowed}")
        # The authoriser learns of a role by a watch of its own.
        granted = f"{user} to have been granted {last}"
        until(lambda: self.run(*asked, objects=review).stdout.strip() == "true", granted)


@contextmanager
def installed_chart(*options: str, controllers: bool = False) -> Iterator[InstalledChart]:
    """Apply the chart rendered with these options of `helm template`; ready when every policy is effective."""
    with ApiServer(controllers=controllers) as api:
        chart = InstalledChart(api)
        chart.must("create", "namespace", generate.NAMESPACE)
        chart.must("create", "namespace", "team")
        documents = list(yaml.safe_load_all(generate.render(*options)))
        # The CRD first: kubectl learns of its kind at the next call only.
        for first in (True, False):
            part = [each for each in documents if (each["kind"] == "CustomResourceDefinition") is first]
            chart.must(
                *("apply", "--server-side", "--validate=strict", "-f", "-"),
                objects={"apiVersion": "v1", "kind": "List", "items": part},
            )
        _wait_until_effective(chart)
        yield chart


def _wait_until_effective(chart: InstalledChart) -> None:
    """The API server takes some seconds to enforce a new policy: wait until each has refused what it must."""
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": "team"}}
    tenant = "policies-are-effective"
    chart.grant(tenant, "team", MODEL_DEPLOYMENT_RULE)
    image = {"image": "probe.invalid/probe"}
    create = ("create", "-f", "-")
    # Unlike `kubectl patch` it does not get the pod first, which the operator may not.
    apply = ("apply", "--server-side", "--field-manager=test", "-f", "-")
    labelled = {"apiVersion": "v1", "kind": "Pod", "metadata": pod("probe", labels={"probe": "yes"})["metadata"]}
    # Pods need the account, which only a controller would make.
    chart.run("-n", "team", "create", "serviceaccount", "default")
    chart.must(*create, objects=pod("probe"))
    attempts: tuple[tuple[str, str, Sequence[str], Mapping[str, Any]], ...] = (
        ("conch-operator-writes", OPERATOR, create, stranger),
        ("conch-operator-pods", OPERATOR, apply, labelled),
        ("conch-references", tenant, create, model_deployment(serviceAccountName="probe")),
        ("conch-runtime-images", "", create, model_deployment(runtime=image)),
    )
    for policy, user, arguments, objects in attempts:
        until(
            partial(_refuses, chart, policy, user, arguments, objects),
            f"{policy} is enforced",
            seconds=_POLICIES_EFFECTIVE_SECONDS,
        )
    chart.must("-n", "team", "delete", "pod", "probe", "--now")


def _refuses(
    chart: InstalledChart, policy: str, user: str, arguments: Sequence[str], objects: Mapping[str, Any]
) -> bool:
    return f"'{policy}'" in chart.run(*arguments, "--dry-run=server", by=user, objects=objects).stderr


MODEL_DEPLOYMENT_RULE: Final[Mapping[str, Any]] = {
    "apiGroups": ["conch.dev"],
    "resources": ["modeldeployments"],
    "verbs": ["get", "create", "update", "patch", "delete"],
}
"""All that the tenant of the threat model may do."""


def model_deployment(
    name: str = "sentiment", *, uri: str = "https://models.example.com/3.onnx", **spec: Any
) -> dict[str, Any]:
    """A ModelDeployment of the namespace `team`."""
    return {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"model": {"version": 3, "source": {"uri": uri}}, **spec},
    }


def pod(name: str, *, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A pod of the namespace `team`, as a ReplicaSet would make it for an object whose labels it bears."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team", "labels": dict(labels or {})},
        "spec": {"containers": [{"name": "triton", "image": "triton"}]},
    }
