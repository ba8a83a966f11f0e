"""Another notation of the same quantity is the same revision."""

import pytest

from conch.api.spec import ModelDeploymentSpec
from conch.core.revision import revision_of

MODEL = {"version": 1, "source": {"uri": "https://m/a.onnx"}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"resources": {"cpu": "2000m"}}, {"resources": {"cpu": 2}}),
        ({"resources": {"memory": "8Gi"}}, {"resources": {"memory": "8192Mi"}}),
        ({"sharedMemory": "2Gi"}, {"sharedMemory": 2147483648}),
    ],
)
def test_notation(one: dict[str, object], other: dict[str, object]) -> None:
    first, second = (ModelDeploymentSpec.model_validate({"model": MODEL, "runtime": r}) for r in (one, other))
    assert revision_of(first) == revision_of(second)
    assert revision_of(first) != revision_of(ModelDeploymentSpec.model_validate({"model": MODEL}))
