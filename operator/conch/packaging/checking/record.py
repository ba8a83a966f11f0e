"""A model's files against the record that packaging wrote."""

import json
from collections.abc import Iterator

from conch.packaging.checking.finding import AGAIN, Finding
from conch.packaging.checking.repository import Repository
from conch.packaging.output.record import RECORD_FILE
from conch.store.digest import file_sha256
from conch.triton.layout import read_tree


def check_record(here: Repository, name: str) -> Iterator[Finding]:
    """What is not as it was packaged; a model without a record is no finding."""
    place = f"{name}/{RECORD_FILE}"
    if not here.has(place):
        return
    try:
        told = json.loads(here.read(place))
        files = {str(path): str(digest) for path, digest in told["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        yield Finding(model=name, place=place, problem=f"it is no record of packaging ({error})", remedy=AGAIN)
        return
    for path, digest in files.items():
        if not here.is_whole and path.partition("/")[0] != name:
            continue  # of one model's own folder, the others of an ensemble are not there to be looked at
        if not here.has(path):
            yield Finding(model=name, place=path, problem=f"{place} names it, and it is missing", remedy=AGAIN)
        elif file_sha256(here.root / path) != digest:
            yield Finding(
                model=name,
                place=path,
                problem=f"it is not the file that was packaged: {place} has another sha256 of it",
                remedy=AGAIN,
            )


def recorded_version(here: Repository, name: str) -> int | None:
    """The version that was packaged last, where the record says it and it is there."""
    try:
        told = json.loads(here.read(f"{name}/{RECORD_FILE}"))["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return told if type(told) is int and told in read_tree(here.root / name).versions else None
