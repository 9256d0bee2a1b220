"""The one error that a user may see: what, value, remedy, in one line; and what numpy raises instead."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping


class UserError(Exception):
    """Input that the user can mend.  The command line prints it without a traceback and exits with code 2."""


ANY = float("inf")  # the greatest value of a range that has no end


def check_ranges(section: str, config: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raises UserError for a setting of ``config`` outside its range, {name: (least, greatest)}, both allowed."""
    for name, (least, greatest) in ranges.items():
        value = getattr(config, name)
        if not least <= value <= greatest:
            words = f"at least {least:g}" if greatest == ANY else f"from {least:g} to {greatest:g}"
            raise UserError(f"{section}.{name} = {value}: must be {words}")


# What ``np.load`` raises for a damaged archive: a bit is enough for most of them.  NotImplementedError (a compression
# that zipfile does not know) is a RuntimeError.
BROKEN_NPZ = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, SyntaxError, struct.error, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
