"""Colours by version, told apart by colour-blind people too: of Okabe and Ito's palette (jfly.uni-koeln.de/color)."""

from typing import Final

FAILED: Final = "#D55E00"
NEUTRAL: Final = "#555555"
_OF_VERSIONS: Final = ("#0072B2", "#E69F00", "#CC79A7", "#009E73")


def of_version(version: int) -> str:
    """The same one in every place."""
    return _OF_VERSIONS[(version - 1) % len(_OF_VERSIONS)]
