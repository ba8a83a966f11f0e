"""What is secret stays where it was put: nothing of it in logs, Events, status, arguments or any other object."""

import json
from functools import partial
from typing import Any

from tests.e2e.conftest import SAMPLE, Namespace
from tests.support.cluster_stores import ClusterStores
from tests.support.installation import NAMESPACE as OPERATOR_NAMESPACE
from tests.support.waiting import until

MODEL = SAMPLE.read_bytes()
NO_GPU = {"count": 0}
SIGNATURE = "sig-0b5e55ed-c0de"


def test_planted_secrets_are_found_nowhere(namespace: Namespace, stores: ClusterStores) -> None:
    """One model that is served, two that are refused: errors are what quotes too much."""
    stores.s3.put_tree(f"{namespace.name}/m", {"digits.onnx": MODEL})
    stores.https.put(f"{namespace.name}/digits.onnx", MODEL)
    endpoint = {"endpoint": stores.s3.endpoint}
    right = namespace.secret("right", stores.s3.credentials) | endpoint
    wrong = namespace.secret("wrong", stores.s3.wrong_credentials) | endpoint
    hub = namespace.secret("hub", stores.hugging_face.wrong_credentials) | {"endpoint": stores.hugging_face.endpoint}
    registry = namespace.secret("registry", stores.registry.wrong_credentials)
    signed = f"{stores.https.uri(f'{namespace.name}/gone.onnx')}?X-Amz-Signature={SIGNATURE}"
    authority = namespace.secret("authority", {"ca.crt": stores.https.ca_certificate})
    uri = stores.s3.uri(f"{namespace.name}/m")
    namespace.deploy("digits", uri, gpu=NO_GPU, model={"source": right})
    namespace.deploy("denied", uri, gpu=NO_GPU, model={"source": wrong})
    namespace.deploy("hub", "hf://team/nothing", gpu=NO_GPU, model={"source": hub})
    namespace.deploy("registry", stores.registry.uri("nothing:1"), gpu=NO_GPU, model={"source": registry})
    namespace.deploy("signed", signed, gpu=NO_GPU, model={"source": authority})
    namespace.wait_ready("digits")
    for name in ("denied", "hub", "registry", "signed"):
        until(partial(_failed, namespace, name), f"{name} to be refused")

    planted = {SIGNATURE, *_admin_keys(namespace)}
    for store in (stores.s3, stores.hugging_face, stores.registry):
        for entries in (store.credentials, store.wrong_credentials):
            planted |= {value for key, value in entries.items() if key not in ("ca.crt", "AWS_ACCESS_KEY_ID")}
    assert len(planted) >= 9, "nothing was planted: the test would find nothing"
    places = _places(namespace)
    found = [(what, secret[:6]) for what, text in places.items() for secret in planted if secret in text]
    assert found == []
    assert all(len(text) > 20 for text in places.values()), "a place was empty: the test would find nothing there"


def _failed(namespace: Namespace, name: str) -> bool:
    return namespace.condition(name, "Stalled").get("status") == "True"


def _admin_keys(namespace: Namespace) -> set[str]:
    """As they stand in the Secrets, and as pods have them."""
    import base64

    items = namespace.cluster.get("secrets", "-n", namespace.name)["items"]
    encoded = {item["data"]["admin-key"] for item in items if "admin-key" in item.get("data", {})}
    return encoded | {base64.b64decode(value).decode() for value in encoded}


def _places(namespace: Namespace) -> dict[str, str]:
    cluster = namespace.cluster
    places: dict[str, str] = {}
    for kind in (
        "pods",
        "events.v1.events.k8s.io",
        "configmaps",
        "controllerrevisions",
        "deployments",
        "endpointslices",
    ):
        places[kind] = json.dumps(cluster.get(kind, "-n", namespace.name)["items"])
    # What its author wrote into the spec is the author's; what we say of it is ours.
    mdeps: list[dict[str, Any]] = cluster.get("mdep", "-n", namespace.name)["items"]
    places["status"] = json.dumps([each["status"] for each in mdeps])
    for kind in ("controllerrevisions", "configmaps"):
        places[kind] = places[kind].replace(f"?X-Amz-Signature={SIGNATURE}", "")
    for pod in cluster.get("pods", "-n", namespace.name)["items"]:
        name = pod["metadata"]["name"]
        for container in ("agent", "triton"):
            log = cluster.kubectl("logs", name, "-c", container, "-n", namespace.name, check=False)
            places[f"log of {name}/{container}"] = log.stdout + log.stderr
    places["log of the operator"] = cluster.kubectl(
        *("logs", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=conch", "--tail=-1", "--prefix"), check=False
    ).stdout
    return places
