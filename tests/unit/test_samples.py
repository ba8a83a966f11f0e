"""The samples are objects that Conch can read, and say which Secret they need."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api.model_deployment import InvalidSpec, parse_spec
from conch.api.source import SCHEMES
from conch.api.spec import ModelDeploymentSpec

ROOT = Path(__file__).parents[2] / "manifests" / "samples"
OF_SOURCES = sorted((ROOT / "sources").glob("*.yaml"))
ALL = sorted(path for path in ROOT.rglob("*.yaml") if path.name != "pipeline.yaml")
"""All but the list of steps that `conch package` takes."""


def _objects(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each and each["kind"] == "ModelDeployment"]


def _spec(path: Path) -> ModelDeploymentSpec:
    (sample,) = _objects(path)
    spec = parse_spec(sample["spec"])
    assert isinstance(spec, ModelDeploymentSpec), spec
    return spec


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_sample_can_be_read(path: Path) -> None:
    for sample in _objects(path):
        spec = parse_spec(sample["spec"])
        assert not isinstance(spec, InvalidSpec), spec
        assert re.fullmatch("[a-z]([-a-z0-9]{0,38}[a-z0-9])?", sample["metadata"]["name"])


def test_each_kind_of_source_has_one() -> None:
    schemes = {path.stem: _spec(path).model.source.place.scheme for path in OF_SOURCES if path.stem != "storage"}
    assert schemes == {scheme: scheme for scheme in SCHEMES if scheme != "http"}


def test_one_has_a_volume_of_its_own() -> None:
    assert _spec(ROOT / "sources" / "storage.yaml").model.storage is not None


def test_their_names_and_versions_differ() -> None:
    objects = [sample for path in ALL for sample in _objects(path)]
    named = [(sample["metadata"]["name"], sample["spec"]["model"]["version"]) for sample in objects]
    assert sorted(named) == sorted(set(named))
    again = {name for name, version in named if version > 1 and (name, 1) in named}
    assert again == {"digits-cnn", "text"}, "two samples are a new version of another"


@pytest.mark.parametrize("path", OF_SOURCES, ids=lambda path: path.stem)
def test_the_comment_makes_the_secret_that_the_sample_names(path: Path) -> None:
    secret = _spec(path).model.source.credentials_secret_ref
    made = re.findall(r"^# +kubectl create secret (?:generic|docker-registry) (\S+) --", path.read_text(), re.MULTILINE)
    assert made == ([secret.name] if secret else [])
    assert "Secret" in path.read_text() or made
