"""A Kubernetes cluster of real parts on one machine, for the tests and the demo; see README.md."""

from tests.cluster.apiserver import ApiServer
from tests.cluster.client import Cluster

__all__ = ["ApiServer", "Cluster"]
