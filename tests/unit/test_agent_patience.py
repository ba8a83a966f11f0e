"""A model whose files lie on a file system that has stopped to answer: said, tried again, and never laid out late."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from conch.agent import repository
from conch.agent.errors import StepError
from conch.agent.patience import Patience
from conch.agent.settings import AgentSettings
from conch.agent.step_kinds import LayOut
from conch.agent.steps import Steps
from conch.api.reasons import Reason
from conch.triton.layout import Tree, read_tree
from tests.contract.models import CONFIG, classifier
from tests.support.async_waiting import until
from tests.unit.test_agent_layouts import assigned, fetched


async def test_files_that_do_not_answer_are_waited_for_once_and_never_laid_out_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = assigned()
    volume = fetched(tmp_path, wanted, {"1/model.onnx": classifier(), "config.pbtxt": CONFIG})
    server_is_back, is_read = threading.Event(), threading.Event()
    readers: list[Path] = []

    def read(folder: Path) -> Tree:
        readers.append(folder)
        try:
            assert server_is_back.wait(timeout=60)
            return read_tree(folder)
        finally:
            is_read.set()

    monkeypatch.setattr(repository, "read_tree", read)
    settings = AgentSettings(admin_key="k", triton_image="registry.example.com/triton:1")
    agent = Steps(settings, volume, *[cast(Any, None)] * 3, clock=lambda: 0.0, patience=Patience(seconds=0.2))
    for _ in range(2):
        with pytest.raises(StepError, match="has not answered for 0 s") as caught:
            await agent.run(LayOut(wanted=wanted))
        assert caught.value.reason is Reason.SOURCE_UNREACHABLE
        assert len(readers) <= 1, "one waits, and no other joins it"
    agent._patience._seconds = 60
    server_is_back.set()
    assert is_read.wait(timeout=60)

    async def laid_out() -> bool:
        with suppress(StepError):
            await agent.run(LayOut(wanted=wanted))
        assert len(readers) == 2 or read_tree(volume.repository).folders == set(), "nobody waits for its work any more"
        return len(readers) == 2

    await until("the one that waited to be gone", laid_out)
    assert read_tree(volume.repository).folders != set()
