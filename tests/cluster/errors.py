"""The one exception that the local cluster shows to a person."""

from __future__ import annotations


class ClusterError(Exception):
    """Says what happened, to what, and what to do; the command line prints it without a traceback."""

    def __init__(self, what: str, *, todo: str) -> None:
        super().__init__(f"{what}\n  -> {todo}")
        self.what = what
        self.todo = todo
