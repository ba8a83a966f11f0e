"""Namespaces of measurements on the cluster."""

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace


def fresh_namespace(cluster: Cluster, name: str) -> Namespace:
    """An empty namespace; one of an earlier run may be on its way out, and is waited for."""
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found")
    cluster.kubectl("create", "namespace", name)
    return Namespace(cluster, name)
