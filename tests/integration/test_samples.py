"""The API server takes every sample as it stands."""

from pathlib import Path

import pytest

from tests.cluster.apiserver import ApiServer

ROOT = Path(__file__).parents[2] / "manifests" / "samples"
# pipeline.yaml is for `conch package`.
OBJECTS = sorted(path for path in ROOT.rglob("*.yaml") if path.name != "pipeline.yaml")


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_sample_is_accepted_without_a_warning(api: ApiServer, namespace: str, path: Path) -> None:
    done = api.kubectl("apply", "--dry-run=server", "-n", namespace, "-f", str(path), check=False)
    assert done.returncode == 0, done.stderr
    assert "created (server dry run)" in done.stdout
    assert "Warning" not in done.stderr, done.stderr
