"""A person's connection: what kubectl would connect to, with the same credentials."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from conch.kube.client import KubeClient
from conch.kube.errors import KubeconfigError

_USUAL_PLACE: Final = Path("~/.kube/config")
_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


async def connect_as_user(context: str | None = None) -> tuple[KubeClient, str]:
    """Connect as a context of the kubeconfig says (default: the current one); returns its namespace too.

    In a pod without a kubeconfig that is the pod's service account. What an exec plugin asks or says goes through.
    Raises KubeconfigError.
    """
    files = [path for path in _named() if path.is_file()]
    if not files and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        try:
            return await KubeClient.connect(), _POD_NAMESPACE.read_text().strip()
        except (kubernetes_config.ConfigException, OSError) as error:
            raise KubeconfigError(f"There is neither a kubeconfig nor the pod's service account: {error}") from error
    if not files:
        places = ", ".join(map(str, _named()))
        raise KubeconfigError(f"There is no kubeconfig at {places}. Set KUBECONFIG to one, as for kubectl.")
    configs = [_read(path) for path in files]
    # kubernetes.aio takes the last file's current context, kubectl the first's.
    context = context or next((str(name) for config in configs if (name := config.get("current-context"))), "")
    namespace = _namespace(configs, context)
    configuration = kubernetes_client.Configuration()
    try:
        await kubernetes_config.load_kube_config(
            config_file=os.pathsep.join(map(str, files)),
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except (kubernetes_config.ConfigException, OSError, ValueError, LookupError, TypeError) as error:
        raise KubeconfigError(f"The kubeconfig's context {context} cannot be used: {error}") from error
    return KubeClient(configuration), namespace


def _named() -> list[Path]:
    paths = [Path(path) for path in os.environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    return [path.expanduser() for path in paths or [_USUAL_PLACE]]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, ValueError) as error:
        raise KubeconfigError(f"The kubeconfig {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        # The error quotes the line, and that may be a credential.
        raise KubeconfigError(f"The kubeconfig {path} is not YAML.") from error
    if not isinstance(config, dict):
        raise KubeconfigError(f"The kubeconfig {path} is no kubeconfig.")
    return config


def _namespace(configs: list[Mapping[str, Any]], name: str) -> str:
    contexts = {}
    for config in reversed(configs):
        contexts.update({each.get("name"): each.get("context") or {} for each in config.get("contexts") or ()})
    if name not in contexts:
        there = ", ".join(sorted(map(str, contexts))) or "none"
        said = f"has no context {name!r}" if name else "has no current context"
        raise KubeconfigError(f"The kubeconfig {said}. Name one with --context; there are: {there}.")
    return str(contexts[name].get("namespace") or "default")
