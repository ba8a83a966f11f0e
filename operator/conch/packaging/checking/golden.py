"""A model's answers against its golden set."""

from collections.abc import Mapping
from typing import Any

from conch.packaging.checking.finding import AGAIN, Finding
from conch.packaging.checking.record import recorded_version
from conch.packaging.checking.repository import Repository
from conch.packaging.errors import PackagingError
from conch.packaging.replay import replay
from conch.packaging.served import NotHere, answerer, latest, signature
from conch.triton.comparison import summary
from conch.triton.golden_set import FILE_BYTES_MOST, GoldenSetError, read_golden_set
from conch.triton.layout import GOLDEN_SET


def check_golden(here: Repository, name: str, config: Any, configs: Mapping[str, Any]) -> tuple[int, list[Finding]]:
    """How many samples were replayed, and what differs. Raises NotHere where that cannot be done here."""
    place = f"{name}/{GOLDEN_SET}"
    if not here.has(place):
        raise NotHere("it has no golden set")
    model = signature(config)
    try:
        samples = read_golden_set(here.read(place, FILE_BYTES_MOST), model)
    except (GoldenSetError, OSError) as error:
        return 0, [Finding(model=name, place=place, problem=str(error), remedy=AGAIN)]
    try:
        # The set is of the version that was packaged last.
        version = recorded_version(here, name) or latest(here.root / name, -1)
        answer = answerer(configs, here.root, name, version)
    except PackagingError as error:
        return 0, [Finding(model=name, place=f"{name}/", problem=str(error), remedy=AGAIN)]
    count, words = summary(len(samples), replay(answer, model=model, samples=samples))
    if not count:
        return len(samples), []
    problem = f"version {version} does not answer as recorded: {words}"
    return len(samples), [
        Finding(model=name, place=place, problem=problem, remedy="do not serve it: the model or the set was changed")
    ]
