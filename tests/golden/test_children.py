"""Every child object as it is written, whole, for a small and for a full spec."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.core.actions import Apply, EnsureAdminKey
from tests.conftest import Golden
from tests.sim.world import World

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
                "instanceGroups": [{"count": 2, "kind": "GPU"}],
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


@pytest.mark.parametrize("case", SPECS)
def test_status_of_a_new_object(case: str, golden: Golden) -> None:
    status = World(spec=SPECS[case]).plan().status.to_wire()
    golden(FILES / f"{case}-status.yaml", yaml.dump(status, Dumper=_Plain, sort_keys=False, width=110))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
