"""The cluster and its namespaces are those of the end-to-end tests."""

from pathlib import Path

import pytest

from tests.e2e import conftest as e2e

cluster, namespace = e2e.cluster, e2e.namespace
pytest_sessionstart, pytest_sessionfinish = e2e.pytest_sessionstart, e2e.pytest_sessionfinish


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the whole cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")
