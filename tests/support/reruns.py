"""A test that is run a second time (pytest-rerunfailures) has its time limit (pytest-timeout) again, and all of it.

By itself pytest-timeout counts from the first attempt on, and no more once a test has failed: what hung in its second
attempt would hang for ever.
"""

from typing import Any

import pytest

_LIMIT = pytest.StashKey[Any]()


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """Remember the limit that is set for the first attempt."""
    item.stash[_LIMIT] = settings


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Set it anew for each later one."""
    if getattr(item, "execution_count", 1) > 1 and (limit := item.stash.get(_LIMIT, None)) is not None:
        item.config.hook.pytest_timeout_cancel_timer(item=item)
        item.config.hook.pytest_timeout_set_timer(item=item, settings=limit)
