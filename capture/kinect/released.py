"""pykinect2 0.1.0 as PyPI has it, made to load: its text is corrected in memory when Python imports it.

The release of 2015 is the last one; what has broken since is a handful of lines.  Nothing of it is kept in this project
and nothing is written to the disk.  Each correction names what it is for; a line that a user's fork has mended
already is not found, and left alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from capture.errors import UserError

PACKAGE = "pykinect2"
INSTALL = ".venv\\Scripts\\pip install pykinect2==0.1.0"
SDK = "install Microsoft's Kinect for Windows SDK 2.0 (or its runtime), then start Windows anew"


@dataclass(frozen=True)
class Correction:
    """A line that does not work any more."""

    why: str
    pattern: str  # regular expression, over lines
    replacement: str


CORRECTIONS = (
    Correction(
        "the structure has 80 bytes where pointers have 8",
        r"^assert sizeof\(tagSTATSTG\) == 72\b.*$",
        "assert sizeof(tagSTATSTG) == 64 + 2 * sizeof(c_void_p)",
    ),
    Correction(
        "comtypes refuses code that another version of it wrote",
        r"^from comtypes import _check_version;.*$",
        "",
    ),
    Correction(
        "a submodule that newer versions of comtypes do not import by themselves",
        r"^(comtypes\.hresult\.E_PENDING\s*=.*)$",
        r"import comtypes.hresult; \1",
    ),
    Correction("a handle has 8 bytes where pointers have 8", r"^INT_PTR = c_int\s*$", "INT_PTR = c_ssize_t"),
    Correction("time.clock ended with Python 3.8", r"\btime\.clock\(", "time.perf_counter("),
    Correction("numpy's names for Python's types ended with 1.24", r"\bnumpy\.(object|float|int|bool)\b(?!_)", r"\1"),
    Correction(  # the two lines of its repository's unreleased version
        "numpy.distutils ended with Python 3.12", r"^import numpy\.distutils\.system_info as sysinfo\s*$", ""
    ),
    Correction("as above", r"\bsysinfo\.platform_bits\b", "(8 * sizeof(c_void_p))"),
)


def corrected(text: str, corrections: Iterable[Correction] = CORRECTIONS) -> str:
    """The text of one of its modules with every known breakage mended."""
    for correction in corrections:
        text = re.sub(correction.pattern, correction.replacement, text, flags=re.MULTILINE)
    return text


class _Loader(SourceFileLoader):
    """Reads the source itself: pip has compiled the broken one."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return compile(corrected(Path(path).read_text("latin-1")), path, "exec", dont_inherit=True)


class Finder(MetaPathFinder):
    """Finds the modules of pykinect2 where Python would, and has them read by ``_Loader``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


def load() -> ModuleType:
    """``pykinect2.PyKinectV2``: the driver's interfaces.  Raises UserError saying what is missing on this machine."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise UserError(f"--source kinect: the package pykinect2 is not installed; run {INSTALL}")
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
    try:
        return importlib.import_module(f"{PACKAGE}.PyKinectV2")
    except ModuleNotFoundError as error:
        needed = f"pykinect2 needs {error.name}; run .venv\\Scripts\\pip install {error.name}"
        raise UserError(f"--source kinect: {needed}") from None
    except OSError as error:  # of ctypes.WinDLL("Kinect20")
        raise UserError(f"--source kinect: the driver of the Kinect V2 is not there ({error}); {SDK}") from None
    except (ImportError, AttributeError, AssertionError, NameError, TypeError) as error:
        raise UserError(
            f"--source kinect: this pykinect2 does not load ({error}); run {INSTALL} --force-reinstall"
        ) from None
