"""What the performer does, over time: a script of keyed channels and footsteps, sampled on a fine clock.

T samples.  Enters: a duration and a seed.  Leaves: ``Score``, smooth channels (angles in radians, lengths in metres)
and both feet's paths in the world (z up, the camera looks along +y, the performer first faces -y, towards it).

The first eight seconds are written by hand: arms, a whole turn, a lifted knee, a squat and a bend; then, for the
held-out part, a turn the other way with another combination of the same arm positions.  A longer clip goes on with
variations of these moves drawn from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

SCRIPT_S = 8.0
STANCE_M = 0.105  # half the distance between the feet
TOE_OUT = np.radians(9)
STEP_S = 0.36

# Arms: elevation (0 hangs, 90 level), azimuth (0 sideways, 90 forward), elbow, roll of the elbow, in degrees.
REST_ARM = (26.0, 8.0, 16.0, 0.0)
ARM_POSES = {
    "rest": REST_ARM,
    "a_pose": (38.0, 0.0, 12.0, 0.0),
    "side": (92.0, 4.0, 10.0, 0.0),
    "goal": (86.0, 6.0, 88.0, 68.0),
    "up": (152.0, 20.0, 18.0, 0.0),
    "front": (84.0, 74.0, 14.0, 0.0),
    "hip": (42.0, -16.0, 92.0, -42.0),
    "fold": (40.0, 44.0, 104.0, 0.0),
    "back": (30.0, -40.0, 14.0, 0.0),
}
ARM_CHANNELS = tuple(f"{kind}.{side}" for side in "LR" for kind in ("elevation", "azimuth", "elbow", "roll"))
CHANNELS = ("yaw", "squat", "bend", "lean", "twist", "look", "nod", *ARM_CHANNELS)


@dataclass
class Score:
    """Sampled channels and feet."""

    times_s: np.ndarray  # (T,)
    channels: dict[str, np.ndarray]  # each (T,)
    feet_m: np.ndarray  # (T, 2, 3) left, right: the ground point under the ankle
    feet_yaw: np.ndarray  # (T, 2)
    feet_pitch: np.ndarray  # (T, 2) toe down
    weight_left: np.ndarray  # (T,) share of the weight on the left foot


@dataclass
class _Script:
    """Keys being written."""

    keys: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    steps: list[tuple[float, float, int, np.ndarray, float, float]] = field(default_factory=list)
    yaw: float = 0.0

    def key(self, channel: str, time_s: float, value: float) -> None:
        self.keys.setdefault(channel, []).append((time_s, value))

    def arms(self, time_s: float, left: str, right: str, jitter: np.ndarray | None = None) -> None:
        """Both arms are in these poses at ``time_s``."""
        for side, pose in (("L", left), ("R", right)):
            for i, kind in enumerate(("elevation", "azimuth", "elbow", "roll")):
                shift = 0.0 if jitter is None else float(jitter[i + 4 * (side == "R")])
                self.key(f"{kind}.{side}", time_s, np.radians(max(ARM_POSES[pose][i] + shift, -45)))

    def turn(self, start_s: float, end_s: float, degrees: float) -> None:
        """Step round on the spot."""
        self.key("yaw", start_s, self.yaw)
        before = self.yaw
        self.yaw += np.radians(degrees)
        self.key("yaw", end_s, self.yaw)
        count = max(round((end_s - start_s) / STEP_S), 2)
        first = 0 if degrees > 0 else 1  # the foot inside the turn opens it
        for i in range(count):
            foot = (first + i) % 2
            begin = start_s + (end_s - start_s) * i / count
            share = min((i + 1.5) / count, 1.0)
            heading = before + (self.yaw - before) * (3 * share**2 - 2 * share**3 if share < 1 else 1.0)
            self.steps.append(
                (begin, begin + (end_s - start_s) / count * 1.05, foot, stance(foot, heading), heading, 0.07)
            )
        # The last foot closes the stance.
        foot = (first + count) % 2
        self.steps.append((end_s, end_s + STEP_S * 0.8, foot, stance(foot, self.yaw), self.yaw, 0.05))

    def lift(self, start_s: float, end_s: float, foot: int, height_m: float, forward_m: float) -> None:
        """Raise a knee, hold it a moment, put the foot back."""
        heading = self.yaw
        forward = np.array([np.sin(heading), -np.cos(heading)])
        inward = stance(foot, heading) * 0.45 + forward * forward_m
        middle = 0.5 * (start_s + end_s)
        self.steps.append((start_s, middle - 0.04, foot, np.array([*inward, height_m]), heading, 0.0))
        self.steps.append((middle + 0.04, end_s, foot, stance(foot, heading), heading, 0.0))

    def dip(self, channel: str, start_s: float, end_s: float, value: float) -> None:
        """A channel goes to a value and back."""
        for time_s, v in (
            (start_s, 0),
            (0.5 * (start_s + end_s) - 0.05, value),
            (0.5 * (start_s + end_s) + 0.05, value),
            (end_s, 0),
        ):
            self.key(channel, time_s, v)


def stance(foot: int, heading: float) -> np.ndarray:
    """(2,) where a foot stands; 0 = left.  At heading 0 the performer faces -y and her left is +x."""
    side = 1 if foot == 0 else -1
    return side * STANCE_M * np.array([np.cos(heading), np.sin(heading)])


def score(duration_s: float, seed: int, rate_hz: float) -> Score:
    """Write and sample the script."""
    script = _Script()
    _opening(script)
    _variations(script, duration_s, np.random.default_rng([seed, 1]))
    times_s = np.arange(int(np.ceil(duration_s * rate_hz)) + 2) / rate_hz
    channels = {name: _sample(script.keys.get(name, [(0.0, 0.0)]), times_s) for name in CHANNELS}
    for name, series in _idle(times_s, seed).items():
        channels[name] = channels[name] + series
    feet, yaw, pitch, weight = _feet(script.steps, times_s, rate_hz)
    return Score(times_s, channels, feet, yaw, pitch, weight)


def _opening(script: _Script) -> None:
    """The demo's eight seconds."""
    arms = (
        (0.0, "a_pose", "a_pose"), (0.5, "a_pose", "a_pose"), (1.05, "side", "side"), (1.55, "goal", "goal"),
        (2.1, "rest", "front"), (2.75, "up", "rest"), (3.35, "hip", "side"), (3.95, "side", "up"),
        (4.5, "front", "hip"), (5.0, "rest", "front"), (5.45, "front", "side"), (5.95, "front", "front"),
        (6.4, "rest", "rest"),
        (6.9, "side", "hip"), (7.4, "up", "front"), (7.75, "side", "side"), (8.0, "goal", "rest"),
    )  # fmt: skip
    for time_s, left, right in arms:
        script.arms(time_s, left, right)
    script.turn(1.45, 4.45, 360)
    script.lift(4.7, 5.4, 0, 0.36, 0.24)
    script.dip("squat", 5.25, 6.35, 0.24)
    script.dip("bend", 5.2, 6.4, np.radians(38))
    script.turn(6.4, 8.0, -165)
    for channel, keys in {
        "lean": (
            (0.5, 0),
            (1.2, 0.10),
            (1.9, 0),
            (2.9, -0.10),
            (3.6, 0.08),
            (4.4, 0),
            (6.6, 0),
            (7.3, 0.10),
            (8.0, -0.05),
        ),
        "twist": (
            (0.4, 0),
            (1.5, 0.22),
            (2.4, 0.10),
            (4.2, 0.12),
            (4.8, -0.20),
            (5.4, 0),
            (6.3, -0.15),
            (7.6, -0.12),
            (8.0, 0),
        ),
        "look": ((0.5, 0), (1.3, 0.25), (2.2, 0.15), (4.2, 0.2), (4.8, -0.2), (5.4, 0.1), (6.4, -0.25), (8.0, -0.1)),
        "nod": ((0.5, 0), (1.1, -0.10), (2.0, 0.05), (5.0, 0.08), (5.9, -0.25), (6.4, 0), (8.0, 0)),
    }.items():
        for time_s, value in keys:
            script.key(channel, time_s, value)


def _variations(script: _Script, duration_s: float, rng: np.random.Generator) -> None:
    """Moves drawn at random until the clip is full."""
    time_s = SCRIPT_S + 0.4
    names = list(ARM_POSES)
    while time_s < duration_s:
        move = rng.choice(["turn", "turn", "lift", "squat", "bend"])
        length = float(rng.uniform(2.2, 3.4) if move == "turn" else rng.uniform(1.1, 1.7))
        if move == "turn":
            script.turn(
                time_s, time_s + length, float(rng.choice([-1, 1]) * rng.choice([90, 180, 270, 360]) * length / 3.4)
            )
        elif move == "lift":
            script.lift(
                time_s,
                time_s + length,
                int(rng.integers(2)),
                float(rng.uniform(0.2, 0.42)),
                float(rng.uniform(0.1, 0.3)),
            )
        elif move == "squat":
            script.dip("squat", time_s, time_s + length, float(rng.uniform(0.12, 0.28)))
        else:
            script.dip("bend", time_s, time_s + length, float(rng.uniform(0.3, 0.8)))
        for t in np.arange(time_s + 0.25, time_s + length, 0.7):
            script.arms(float(t), str(rng.choice(names)), str(rng.choice(names)), rng.uniform(-8, 8, 8))
        for channel, size in (("lean", 0.12), ("twist", 0.25), ("look", 0.3), ("nod", 0.12)):
            script.key(channel, time_s + 0.5 * length, float(rng.uniform(-size, size)))
        time_s += length + float(rng.uniform(0.3, 0.5))


def _sample(keys: list[tuple[float, float]], times_s: np.ndarray) -> np.ndarray:
    """Keys to (T,) values: monotone cubic, then a little blur so that accelerations stay human."""
    from scipy.interpolate import PchipInterpolator
    from scipy.ndimage import gaussian_filter1d

    keys = sorted(keys)
    t = np.array([k[0] for k in keys])
    keep = np.append(True, np.diff(t) > 1e-6)
    t, v = t[keep], np.array([k[1] for k in keys])[keep]
    if len(t) == 1:
        return np.full(len(times_s), v[0])
    values = PchipInterpolator(t, v)(times_s.clip(t[0], t[-1]))
    return gaussian_filter1d(values, 0.05 / (times_s[1] - times_s[0]), mode="nearest")


def _idle(times_s: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Breath and sway: nobody stands still."""
    rng = np.random.default_rng([seed, 2])
    sizes = {"lean": 0.012, "bend": 0.012, "twist": 0.02, "look": 0.03, "nod": 0.02, "elbow.L": 0.04, "elbow.R": 0.04}
    return {
        name: size * np.sum([np.sin(2 * np.pi * (f * times_s + rng.uniform())) for f in (0.31, 0.57, 0.83)], axis=0) / 2
        for name, size in sizes.items()
    }


def _feet(steps, times_s: np.ndarray, rate_hz: float):
    """Both feet's paths: planted between steps, along an arc in a step."""
    from scipy.ndimage import gaussian_filter1d

    count = len(times_s)
    feet, yaw, pitch = np.zeros((count, 2, 3)), np.zeros((count, 2)), np.zeros((count, 2))
    load = np.ones((count, 2))
    for foot in range(2):
        at, heading, done = np.array([*stance(foot, 0.0), 0.0]), 0.0, 0
        for start_s, end_s, which, target, target_yaw, height in sorted(steps, key=lambda s: s[0]):
            if which != foot:
                continue
            begin, end = np.searchsorted(times_s, [start_s, end_s])
            begin = max(begin, done)
            goal = np.array([*target, 0.0])[:3]
            feet[done:begin, foot], yaw[done:begin, foot] = at, heading
            load[done:begin, foot] = 1.0 if at[2] < 0.01 else 0.0
            s = ((times_s[begin:end] - start_s) / (end_s - start_s)).clip(0, 1)
            ease = s * s * s * (10 - 15 * s + 6 * s * s)  # minimum jerk
            feet[begin:end, foot] = at + (goal - at) * ease[:, None]
            feet[begin:end, foot, 2] += height * np.sin(np.pi * s) ** 2
            yaw[begin:end, foot] = heading + (target_yaw - heading) * ease
            pitch[begin:end, foot] = 0.45 * np.sin(np.pi * s.clip(0, 0.7) / 0.7) ** 2
            load[begin:end, foot] = 0.0
            at, heading, done = goal, target_yaw, max(end, begin)
        feet[done:, foot], yaw[done:, foot] = at, heading
        load[done:, foot] = 1.0 if at[2] < 0.01 else 0.0
    # Raised feet hang toe down.
    pitch += 1.6 * feet[:, :, 2].clip(0, 0.3)
    weight = (0.5 + 0.5 * (load[:, 0] - load[:, 1])).clip(0.18, 0.82)
    sides = np.array([TOE_OUT, -TOE_OUT])
    return feet, yaw + sides, pitch, gaussian_filter1d(weight, 0.09 * rate_hz, mode="nearest")
