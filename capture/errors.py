"""The one error that a user may see: what, value, remedy, in one line; and what numpy raises instead."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib


class UserError(Exception):
    """Input that the user can mend.  The command line prints it without a traceback and exits with code 2."""


# What ``np.load`` raises for a damaged archive: a bit is enough for most of them.  NotImplementedError (a compression
# that zipfile does not know) is a RuntimeError.
BROKEN_NPZ = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, SyntaxError, struct.error, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
