"""Every child object as it is written, whole, for a small and for a full spec."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.core.actions import Apply, EnsureAdminKey
from conch.core.observed_child import ChildKind
from conch.core.policy import ModelCache
from tests.conftest import Golden
from tests.sim.world import POLICY, World

FILES = Path(__file__).parent / "children"

SPECS: dict[str, dict[str, Any]] = {
    "minimal": {"model": {"version": 3, "source": {"uri": "https://models.example.com/sentiment/3.tar.gz"}}},
    "bucket": {
        "model": {
            "version": 1,
            "source": {
                "uri": "s3://models/sentiment/1",
                "endpoint": "https://store.example.com:9000",
                "region": "eu-central-1",
                "pathStyle": False,
                "credentialsSecretRef": {"name": "store"},
            },
        },
        "gpu": {"count": 0},
    },
    "several-models": {
        "model": {
            "version": 3,
            "source": {"uri": "pvc://models/whole", "credentialsSecretRef": {"name": "store"}},
        },
        "models": [
            {"name": "tokenizer", "version": 1, "source": {"uri": "pvc://models/tokenizer"}},
            {
                "name": "classifier",
                "version": 7,
                "source": {"uri": "pvc://weights/7", "digest": "sha256:" + "0" * 64},
                "config": {"maxBatchSize": 8},
            },
            {
                "name": "labels",
                "version": 1,
                "source": {"uri": "s3://models/labels", "credentialsSecretRef": {"name": "other-store"}},
            },
        ],
    },
    "full": {
        "model": {
            "name": "fraud_v2",
            "version": 7,
            "source": {"uri": "pvc://models/fraud", "digest": "sha256:" + "0" * 64},
            "storage": {"size": "200Gi", "storageClassName": "fast"},
            "format": "Repository",
            "config": {
                "maxBatchSize": 64,
                "dynamicBatching": {"maxQueueDelayMicroseconds": 2000, "maxQueueSize": 512},
                "instanceGroups": [{"count": 2, "kind": "GPU", "gpus": [1]}, {"kind": "CPU"}],
                "parameters": {"threshold": "0.5"},
            },
        },
        "runtime": {
            "image": "nvcr.io/nvidia/tritonserver:26.07-py3",
            "resources": {"cpu": 4, "memory": "16Gi"},
            "sharedMemory": "2Gi",
            "env": [{"name": "OMP_NUM_THREADS", "value": "4"}],
            "logLevel": {"verbose": 1},
        },
        "gpu": {"count": 2, "resource": "nvidia.com/mig-1g.10gb", "products": ["NVIDIA-H100"]},
        "scheduling": {
            "nodeSelector": {"pool": "serving"},
            "tolerations": [{"key": "serving", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "online",
            "runtimeClassName": "nvidia",
        },
        "replicas": 3,
        "serviceAccountName": "fraud",
        "imagePullSecrets": [{"name": "registry"}],
    },
    "placement": {
        "model": {"version": 3, "source": {"uri": "https://models.example.com/sentiment/3.tar.gz"}},
        "gpu": {"claims": [{"name": "gpu", "resourceClaimTemplateName": "two-h100"}], "products": ["NVIDIA-H100"]},
        "scheduling": {
            "topologySpread": [
                {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"},
                {"topologyKey": "kubernetes.io/hostname", "maxSkew": 2, "whenUnsatisfiable": "ScheduleAnyway"},
            ],
            "schedulerName": "volcano",
            "queueName": "team-a.gpus",
        },
    },
    "gateway-api": {
        "model": {"version": 3, "source": {"uri": "https://models.example.com/sentiment/3.tar.gz"}},
        "models": [
            {"name": "tokenizer", "version": 2, "source": {"uri": "https://models.example.com/tokenizer.tar.gz"}}
        ],
        "gateway": {
            "mode": "GatewayAPI",
            "parentRefs": [
                {"name": "public", "namespace": "infra", "sectionName": "web", "protocol": "HTTP"},
                {"name": "public", "namespace": "infra", "port": 8443, "protocol": "GRPC"},
            ],
            "hostnames": ["sentiment.example.com"],
            "grpcHostnames": ["sentiment.grpc.example.com"],
        },
    },
    "claims-and-counted": {
        "model": {"version": 3, "source": {"uri": "https://models.example.com/sentiment/3.tar.gz"}},
        "gpu": {"count": 4, "claims": [{"name": "channel", "resourceClaimTemplateName": "imex"}]},
    },
}


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


@pytest.mark.parametrize("case", SPECS)
def test_children(case: str, golden: Golden) -> None:
    actions = World(spec=SPECS[case]).plan().actions
    bodies = [action.desired.body for action in actions if isinstance(action, Apply | EnsureAdminKey)]
    assert len(bodies) == len(actions)
    documents = [yaml.dump(_plain(body), Dumper=_Plain, sort_keys=False, width=110) for body in bodies]
    golden(FILES / f"{case}.yaml", "---\n".join(documents))


def test_deployment_with_a_model_cache(golden: Golden) -> None:
    policy = replace(POLICY, model_cache=ModelCache(claim="model-cache", limit="2Ti"))
    actions = World(spec=SPECS["minimal"], policy=policy).plan().actions
    applied = (action.desired for action in actions if isinstance(action, Apply))
    (body,) = (desired.body for desired in applied if desired.id.kind is ChildKind.DEPLOYMENT)
    golden(FILES / "cached.yaml", yaml.dump(_plain(body), Dumper=_Plain, sort_keys=False, width=110))


@pytest.mark.parametrize("case", SPECS)
def test_status_of_a_new_object(case: str, golden: Golden) -> None:
    status = World(spec=SPECS[case]).plan().status.to_wire()
    golden(FILES / f"{case}-status.yaml", yaml.dump(status, Dumper=_Plain, sort_keys=False, width=110))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
