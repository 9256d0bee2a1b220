"""MediaPipe Pose, opened in one place: with the weights that its wheel carries, and without its start-up chatter."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

CARRIED = 1  # model_complexity whose weights are in the wheel; 0 and 2 would be downloaded
# What its C++ says of itself at the start.
CHATTER = re.compile(rb"[IW]\d{4} [\d:.]+ |INFO: Created TensorFlow Lite |WARNING: All log messages before absl")


class PoseNetwork:
    """MediaPipe's Pose solution with the given settings.  Use as a context manager, or ``close`` it."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._pose: Any = None

    def process(self, color: np.ndarray) -> Any:
        """What it finds in (H, W, 3) uint8 RGB, as MediaPipe's solution outputs."""
        if self._pose is not None:
            return self._pose.process(color)
        os.environ.setdefault("GLOG_minloglevel", "2")
        warnings.filterwarnings("ignore", message=r"SymbolDatabase\.GetPrototype")  # protobuf to MediaPipe's authors
        with without_chatter():  # until the first picture is through: its threads load the networks meanwhile
            from mediapipe.python.solutions.pose import Pose

            self._pose = Pose(model_complexity=CARRIED, **self._settings)
            return self._pose.process(color)

    def close(self) -> None:
        if self._pose is not None:
            self._pose.close()

    def __enter__(self) -> PoseNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def without_chatter() -> Iterator[None]:
    """Leave ``CHATTER`` out of what this process writes to its standard error meanwhile; all else comes afterwards.

    The notices are written by C++ straight to the file descriptor, and no setting of theirs silences them.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        real = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            caught.seek(0)
            for line in caught:
                if not CHATTER.match(line):
                    os.write(2, line)
