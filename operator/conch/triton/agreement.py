"""Whether two servers answer the same request alike, with words for a person that show nothing of what was answered."""

from collections.abc import Sequence

from conch.api.shadow import OutputTolerance, ShadowShare
from conch.triton.comparison import Comparison, comparison
from conch.triton.golden_set import EXACT, Expected, SameLabel, Tolerance, Within
from conch.triton.tensors import BYTES, FLOATS, Tensor


def disagreement(stable: Sequence[Tensor], candidate: Sequence[Tensor], share: ShadowShare) -> str:
    """In which outputs the candidate's answer differs; empty if in none.

    What only the candidate answers is no difference: clients that know the stable revision do not ask for it.
    """
    answers = {each.name: each for each in candidate}
    of_outputs = {each.output: each for each in share.outputs}
    found = []
    for wanted in stable:
        tolerance = _tolerance(wanted, share, of_outputs.get(wanted.name))
        compared = comparison(Expected(tensor=wanted, tolerance=tolerance), answers.get(wanted.name))
        if not compared.passed:
            found.append(_words(wanted.name, compared))
    return "; ".join(found)


def _tolerance(tensor: Tensor, share: ShadowShare, own: OutputTolerance | None) -> Tolerance:
    """What is no number is equal or not, whatever is asked; integers are equal unless it is asked of them."""
    if tensor.datatype in (BYTES, "BOOL"):
        return EXACT
    if own is None:
        return Within(atol=share.absolute, rtol=share.relative) if tensor.datatype in FLOATS else EXACT
    if own.same_label:
        has_labels = tensor.array.size and tensor.array.ndim and tensor.shape[-1] > 1
        return SameLabel() if has_labels else EXACT
    # Each falls back on its own: who gives one of the two says nothing of the other.
    is_float = tensor.datatype in FLOATS
    absolute = (share.absolute if is_float else 0.0) if own.absolute is None else own.absolute
    relative = (share.relative if is_float else 0.0) if own.relative is None else own.relative
    return Within(atol=absolute, rtol=relative)


def _words(name: str, compared: Comparison) -> str:
    """Without the values themselves: they are what clients asked about."""
    if not compared.count:
        # Another datatype or shape, or no such output: nothing of what was answered.
        return f"{name}{compared.worst}"
    largest = compared.largest_deviation
    return f"{name}: {compared.count}" + ("" if largest is None else f", by up to {largest:.3g}")
