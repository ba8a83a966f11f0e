"""Numbers for people: three digits, and no exponents."""


def figure(value: float) -> str:
    """A number as a sentence tells it.

    >>> figure(1234.5), figure(0.012345), figure(99.96)
    ('1,230', '0.0123', '100')
    """
    return f"{float(f'{value:.3g}'):,g}"


def span(seconds: float) -> str:
    """A time as a sentence tells it: in the largest unit that divides it well.

    >>> span(90), span(300), span(7200)
    ('90 s', '5 min', '2 h')
    """
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds / 3600:g} h"
    return f"{seconds / 60:g} min" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g} s"
