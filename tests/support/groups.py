"""Which tests pytest-xdist may run at the same time: those that are marked as one group follow each other.

As its own `--dist loadgroup`, which names the groups in node ids that pytest 9 does not let it change.
"""

import importlib
from functools import cache
from pathlib import PurePosixPath

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUP = "group"


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # xdist publishes no types
    """A group goes to one worker, one test after the other; each other test to whichever worker is free."""

    def _split_scope(self, nodeid: str) -> str:
        """What is not to be shared out among workers."""
        return group_of(nodeid) or nodeid


@cache
def group_of(nodeid: str) -> str:
    """The group that a test function or its module is marked with; empty if none is."""
    file, _, function = nodeid.partition("::")
    # The workers have collected it; the process that shares out the tests has only its name.
    module = importlib.import_module(".".join(PurePosixPath(file).with_suffix("").parts))
    for marked in (getattr(module, function.partition("[")[0]), module):
        marks = getattr(marked, "pytestmark", [])
        for mark in marks if isinstance(marks, list) else [marks]:
            named: pytest.Mark = mark.mark if isinstance(mark, pytest.MarkDecorator) else mark
            if named.name == GROUP:
                return str(named.args[0])
    return ""
