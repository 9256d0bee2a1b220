"""The one error that a user may see: what, value, remedy, in one line."""

from __future__ import annotations


class UserError(Exception):
    """Input that the user can mend.  The command line prints it without a traceback and exits with code 2."""
