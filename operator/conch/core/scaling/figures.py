"""Numbers for people: three digits, and no exponents."""


def figure(value: float) -> str:
    """A number as a sentence tells it.

    >>> figure(1234.5), figure(0.012345), figure(99.96)
    ('1,230', '0.0123', '100')
    """
    return f"{float(f'{value:.3g}'):,g}"
