"""Shares as text: per cent to one place, alone, or with the interval that they lie in."""

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"  # for what is not there, and between two ends
DELTA = "\N{GREEK CAPITAL LETTER DELTA}"


def percent(share: float, signed: bool = False) -> str:
    """0.044 -> '4.4', signed '+4.4'; with a true minus sign, and no sign at 0.0."""
    text = f"{share * 100:.1f}"
    if float(text) == 0:
        return "0.0"
    return text.replace("-", MINUS) if share < 0 else ("+" if signed else "") + text


def with_interval(share: float, low: float, high: float, *, signed: bool = False) -> str:
    """'71.2 [68.0, 74.1]': a share and the ends of its interval."""
    return f"{percent(share, signed)} [{percent(low, signed)}, {percent(high, signed)}]"


def from_to(low: float, high: float, *, signed: bool = False) -> str:
    """'68.0–74.1'; signed, where a dash would stand beside a minus, '−0.2 to +1.4'."""
    return (" to " if signed else DASH).join((percent(low, signed), percent(high, signed)))


def direction(low: float, high: float) -> str:
    """'up' or 'down' where all of an interval lies on that side of 0, else ''."""
    return "up" if low > 0 else "down" if high < 0 else ""
