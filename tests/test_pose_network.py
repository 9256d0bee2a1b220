"""The network is opened quietly, and nothing but its chatter is swallowed."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def standard_error(program: str) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=TOP, timeout=120)
    return done.returncode, done.stderr.splitlines()


def test_the_network_starts_without_a_word() -> None:
    assert standard_error(
        "import numpy as np\n"
        "from capture.pose_network import PoseNetwork\n"
        "with PoseNetwork(static_image_mode=True) as network:\n"
        "    assert network.process(np.zeros((64, 64, 3), np.uint8)).pose_landmarks is None\n"
    ) == (0, [])


def test_other_words_come_through_in_order() -> None:
    assert standard_error(
        "import os, sys\n"
        "from capture.pose_network import without_chatter\n"
        "print('before', file=sys.stderr)\n"
        "with without_chatter():\n"
        "    os.write(2, b'masks 1/2\\n')\n"
        "    os.write(2, b'W0000 00:00:1795378984.429442   10540 inference_feedback_manager.cc:114] Feedback\\n')\n"
        "    os.write(2, b'INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\n')\n"
        "    print('masks 2/2', file=sys.stderr)\n"
        "print('after', file=sys.stderr)\n"
    ) == (0, ["before", "masks 1/2", "masks 2/2", "after"])


def test_words_before_a_failure_are_not_lost() -> None:
    code, lines = standard_error(
        "import os\n"
        "from capture.pose_network import without_chatter\n"
        "with without_chatter():\n"
        "    os.write(2, b'E0000 00:00:1795378984.429442 the graph is broken\\n')\n"
        "    raise ValueError('no graph')\n"
    )
    assert code == 1
    assert lines[0] == "E0000 00:00:1795378984.429442 the graph is broken"
    assert lines[-1] == "ValueError: no graph"
