"""Times as text."""


def brief(seconds: float) -> str:
    """0.00012 -> '0.12 ms', 90 -> '1.5 min'."""
    for limit, size, unit in ((1, 1e-3, "ms"), (60, 1, "s"), (3600, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86_400:.3g} days"


def hours_and_minutes(seconds: float) -> str:
    """3725 -> '1 h 2 min', 130 -> '2 min'."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
