"""The command line wires what the roles need."""

import gc
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from conch.app import logs
from conch.app.operator import Operator
from conch.cli import app
from conch.kube.client import KubeClient
from conch.runtime.garbage_collection import ShortCollections


class NoClient:
    """In place of a connection."""

    async def close(self) -> None:
        """There is none."""


def test_the_operator_keeps_its_garbage_collections_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings, key = tmp_path / "settings.yaml", tmp_path / "key"
    settings.write_text(yaml.safe_dump({"images": {"triton": "triton", "agent": "agent"}}))
    key.write_text("k" * 32)
    while_running: list[Any] = []

    async def connect() -> NoClient:
        return NoClient()

    async def run(_operator: Operator) -> None:
        while_running.extend(gc.callbacks)

    monkeypatch.setattr(KubeClient, "connect", connect)
    monkeypatch.setattr(Operator, "run", run)
    monkeypatch.setattr(logs, "configure_logs", lambda **_: None)
    before = list(gc.callbacks)
    try:
        files = ["--settings", str(settings), "--installation-key", str(key), "--gateway-token", str(key)]
        done = CliRunner().invoke(app, ["operator", *files])
        assert done.exit_code == 0, done.output
        assert any(isinstance(callback, ShortCollections) for callback in while_running)
    finally:
        gc.callbacks[:] = before
        gc.unfreeze()
