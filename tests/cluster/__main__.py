"""`python -m tests.cluster`."""

from tests.cluster.cli import run

run()
