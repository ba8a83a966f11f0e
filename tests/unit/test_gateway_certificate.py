"""The days that a certificate has left, by Envoy's word: not told before Envoy has counted them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from conch.gateway.certificate import Certificate
from conch.gateway.envoy import tls


class Envoy:
    """Says one gauge after the other, and the last one again and again."""

    def __init__(self, *days: int) -> None:
        self._days = list(days)

    async def stats(self, pattern: str, **_: Any) -> Mapping[str, float]:
        if tls.SECRETS_TAKEN.rpartition(".")[2] in pattern.replace("[.]", "."):
            return {tls.SECRETS_TAKEN: 1}
        return {tls.DAYS_LEFT: self._days.pop(0) if len(self._days) > 1 else self._days[0]}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ((364,), [364]),
        ((2**32 - 1, 2**32 - 1, 364), [None, None, 364]),
        ((0,), [0, 0]),
        ((7, 0), [7, 0]),
    ],
    ids=["counted", "not yet", "it has ended", "it ends later"],
)
async def test_days_are_told_once_they_are_counted(
    tmp_path: Path, said: tuple[int, ...], told: list[int | None]
) -> None:
    registry = CollectorRegistry()
    envoy = cast(Any, Envoy(*said))
    certificate = Certificate(tmp_path, dynamic_folder=tmp_path / "dynamic", admin=envoy, registry=registry)
    for days in told:
        await certificate._tell_days_left()
        assert registry.get_sample_value("conch_gateway_certificate_days_left") == days
