"""What packaging and checking print."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api.model_deployment import parse_spec
from conch.api.spec import ModelDeploymentSpec
from conch.packaging.checking.check import Checked
from conch.packaging.checking.finding import Finding
from conch.packaging.graph.parity import Parity
from conch.packaging.optimise.latency import Latency
from conch.packaging.optimise.score import Score
from conch.packaging.optimise.variants import Choice, Variant
from conch.packaging.packaging import Package
from conch.packaging.report import checked_json, checked_text, manifest, package_json, package_text
from conch.rollouts.printing import as_text
from conch.triton.config_pbtxt import parse_config
from tests.support.packaging_graphs import linear

DIGEST = "sha256:" + "0" * 64


def variant(name: str, **changes: Any) -> Variant:
    told: dict[str, Any] = {
        "graph": linear(),
        "bytes": 1_205_390,
        "score": Score(metric="accuracy", value=0.969),
        "latency": Latency(one_us=25.6, most_us=19_705),
        "batch_deviation": 0.0,
        "parity": None,
    }
    return Variant(name=name, **(told | changes))


def package(*, reasons: dict[str, str] | None = None, **changes: Any) -> Package:
    fp32 = variant("fp32")
    told: dict[str, Any] = {
        "path": Path("models/net"),
        "digest": DIGEST,
        "name": "net",
        "version": 2,
        "models": ("net",),
        "config": parse_config("max_batch_size: 32"),
        "parity": Parity(largest=3.6e-7, by_batch={1: 1e-7, 32: 3.6e-7}, output="y"),
        "variants": (fp32,),
        "choice": Choice(kept=fp32, reasons=reasons or {}, why="it is the model as it came"),
        "golden_count": 32,
    }
    return Package(**(told | changes))


def lines(made: Package) -> list[str]:
    return as_text(package_text(made)).splitlines()


def test_the_digest_is_the_last_line_and_the_commands_come_before() -> None:
    told = lines(package())
    assert told[0].startswith("net version 2 is in models/net, batches of up to 32, largest deviation from its source ")
    assert told[0].endswith("3.6e-07, golden set of 32")
    assert told[-1] == DIGEST
    assert "conch push models/net s3://BUCKET/net/2" in told


def test_the_table() -> None:
    int8 = variant("int8 (dynamic)", bytes=312_000, score=None, latency=Latency(one_us=13.7, most_us=76))
    reasons = {"int8 (dynamic)": "slower", "int8 (static)": "there is nothing to quantise"}
    made = package(variants=(variant("fp32"), int8), reasons=reasons)
    start = lines(made).index("") + 1
    table = [" ".join(line.split()) for line in lines(made)[start : start + 4]]
    assert table == [
        "VARIANT SIZE SCORE 1 SAMPLE BATCH OF 32 KEPT",
        "fp32 1,205,390 0.9690 accuracy 26 us 19.7 ms yes: it is the model as it came",
        "int8 (dynamic) 312,000 - 14 us 76 us no: slower",
        "int8 (static) - - - - no: there is nothing to quantise",
    ]


def test_where_nothing_was_tried_nothing_is_explained() -> None:
    assert any(line.endswith("19.7 ms      yes") for line in lines(package()))


def test_a_model_without_batches_has_no_column_of_them() -> None:
    assert not any("BATCH OF" in line for line in lines(package(config=parse_config(""))))


def test_a_pipeline_has_no_table() -> None:
    told = lines(package(choice=None, variants=(), parity=None, golden_count=0, models=("a", "net"), notes=("look",)))
    assert told[:3] == ["net version 2 is in models/net, models a, net, batches of up to 32", "", "note: look"]


@pytest.mark.parametrize(
    ("name", "called"),
    [
        *(("net", "net"), ("my_net", "my-net"), ("net_", "net"), ("2d", "model-2d")),
        *(("a" * 63, "a" * 40), ("a" * 39 + "-b", "a" * 39)),
    ],
)
def test_the_manifest_is_a_model_deployment(name: str, called: str) -> None:
    body = yaml.safe_load(manifest(package(name=name)).replace("BUCKET", "bucket"))
    assert body["metadata"]["name"] == called
    assert re.fullmatch("[a-z]([-a-z0-9]{0,38}[a-z0-9])?", called), "the CRD's rule"
    spec = parse_spec(body["spec"])
    assert isinstance(spec, ModelDeploymentSpec), spec
    assert spec.model.named(called).name == name
    assert (spec.model.version, spec.model.source.digest) == (2, DIGEST)
    assert spec.model.source.uri == f"s3://bucket/{name}/2"


def test_json_is_one_object() -> None:
    body = json.loads(package_json(package(notes=("look",), reasons={"int8 (static)": "no"})))
    assert (body["digest"], body["path"], body["models"]) == (DIGEST, "models/net", ["net"])
    assert body["variants"][0]["score"] == {"metric": "accuracy", "value": 0.969}
    assert body["variants"][0]["fullBatchMicroseconds"] == 19_705
    assert (body["kept"]["name"], body["notKept"]) == ("fp32", {"int8 (static)": "no"})
    assert (body["parity"]["byBatch"], body["notes"]) == ({"1": 1e-7, "32": 3.6e-7}, ["look"])
    empty = json.loads(package_json(package(choice=None, parity=None, variants=())))
    assert (empty["kept"], empty["parity"], empty["notKept"]) == (None, None, {})


FINDING = Finding(model="net", place="net/golden.json", problem="it is\nno JSON\x1b[2J", remedy="package it again")


def test_what_a_check_found() -> None:
    checked = Checked(
        findings=(FINDING,),
        models=("net", "other", "broken"),
        replayed={"net": 3},
        not_replayed={"other": "it has no golden set"},
        pushed=Path("models"),
        digest=DIGEST,
    )
    assert as_text(checked_text(checked)).splitlines() == [
        "net/golden.json: it is no JSON[2J; package it again",
        "net: 3 samples of its golden set replayed",
        "other: not replayed: it has no golden set",
        "1 thing is wrong",
        "digest of models:",
        DIGEST,
    ]
    body = json.loads(checked_json(checked))
    assert body["findings"][0]["place"] == "net/golden.json"
    assert (body["replayed"], body["path"], body["digest"]) == ({"net": 3}, "models", DIGEST)


def test_a_check_that_found_nothing() -> None:
    checked = Checked(findings=(), models=("net",), replayed={"net": 3}, pushed=Path("models/net"))
    assert as_text(checked_text(checked)).splitlines()[-1] == "nothing is wrong"
    assert json.loads(checked_json(checked))["digest"] is None
