"""`conch operator`, for tests whose pods are played: what it asks agents goes to where these really listen."""

from dataclasses import replace
from typing import Any

from conch.app.agent_reports import AgentReports
from conch.cli import main
from conch.core.observed_pod import ObservedPod
from tests.support.played_pods import dialled

_ask = AgentReports._ask


async def _ask_played(reports: AgentReports, session: Any, observed: ObservedPod, status_key: str) -> Any:
    return await _ask(reports, session, replace(observed, ip=dialled(observed.ip)), status_key)


if __name__ == "__main__":
    AgentReports._ask = _ask_played  # type: ignore[method-assign, assignment]  # a stand-in
    main()
