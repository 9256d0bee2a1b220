"""How wide networks are, as settings say it: read without torch, which takes seconds to load."""

from __future__ import annotations

from capture.errors import UserError


def parse_widths(text: str) -> tuple[int, ...]:
    """ "16,32,64" to (16, 32, 64).  Raises UserError for anything but positive whole numbers."""
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise UserError(f'widths "{text}": expected positive whole numbers such as "16,32,64,96", one per level')
    return widths
