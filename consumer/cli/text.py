"""How commands spell what producers sent, and spans of time."""

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def duration(seconds: float | None) -> str:
    """The two largest units: ``1h 5m``."""
    if seconds is None:
        return "-"
    left = int(seconds)
    parts: list[str] = []
    for unit, size in _UNITS:
        number, left = divmod(left, size)
        if number or parts:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"


def printable(text: str) -> str:
    """`text` without what could move the cursor or turn the line around; ids are what producers sent."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
