"""One canonical form of Kubernetes objects, so that what was asked for and what the API server keeps hash alike."""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_SUFFIXES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{letter: Decimal(1000) ** (power + 1) for power, letter in enumerate("kMGTPE")},
    **{f"{letter}i": Decimal(1024) ** (power + 1) for power, letter in enumerate("KMGTPE")},
}

_QUANTITY_MAPS: Final = frozenset({"limits", "requests"})
_QUANTITY_FIELDS: Final = frozenset({"sizeLimit"})
_NULL_WHEN_EMPTY: Final = frozenset({"endpoints"})
"""Lists that the API server gives back as null when there is nothing in them."""


def quantity(text: str | int) -> Decimal:
    """The value of a Kubernetes quantity; raises ValueError for one that is none.

    >>> quantity("1500m") == quantity("1.5"), quantity("1Gi") == quantity("1024Mi")
    (True, True)
    """
    value = str(text)
    number = value.rstrip("numkKMGTPEi")
    try:
        return Decimal(number) * _SUFFIXES[value[len(number) :]]
    except (KeyError, ArithmeticError) as error:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 4Gi") from error


def canonical_hash(value: Any) -> str:
    """Hash of an object that does not depend on key order or on how a quantity is written."""
    return hashlib.sha256(json.dumps(_canonical(value, ""), sort_keys=True).encode()).hexdigest()[:16]


def _canonical(value: Any, field: str) -> Any:
    if isinstance(value, Mapping):
        if field in _QUANTITY_MAPS:
            return {key: _quantity_text(item) for key, item in value.items()}
        return {key: _canonical(item, key) for key, item in value.items()}
    if value is None and field in _NULL_WHEN_EMPTY:
        return []
    if isinstance(value, list | tuple):
        return [_canonical(item, "") for item in value]
    return _quantity_text(value) if field in _QUANTITY_FIELDS else value


def _quantity_text(value: Any) -> Any:
    """A quantity in its one form. What stands in such a place but is none (in a stranger's object) stays as it is."""
    try:
        return str(quantity(value).normalize())
    except ValueError:
        return value
