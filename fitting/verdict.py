"""Whether a frame's fit is to be believed: tracked, uncertain or lost, and why, in words a user understands.

Enter: figures of one frame (``Figures``).  Leaves: a ``Verdict``.  Where trunk and most limbs are right and an arm or a
leg is in doubt, the frame is tracked and the limb is named: the frame teaches, that limb does not.  Uncertain frames
keep their pose but teach nothing: a wrong pose in training smears the whole avatar, a missing frame among hundreds
costs next to nothing.  So the thresholds lean towards doubt.  N frames, J joints, V vertices.

The thresholds were chosen on four clips (two synthetic ones with known joints, a phone video, a turntable with depth):
below each of them lie the figures of the frames that are right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fitting.clip import LOST_IOU, LOST_LANDMARK
from fitting.keypoints import LANDMARK_NAMES
from fitting.limbs import Limb

TRACKED, UNCERTAIN, LOST = "tracked", "uncertain", "lost"

MAX_LANDMARK = 0.05  # of the person's height; frames that are right reach 0.03, with bad light 0.047
MIN_IOU = 0.70  # skirts and wide sleeves cost some; frames that are right keep 0.76
MAX_DIP = (
    0.08  # below the overlap usual around the frame, as when somebody passes by; frames that are right stay within 0.06
)
DIP_FRAMES = 20  # on either side: what is usual
MAX_DEPTH_MM = 30.0  # clothes stand off 20 mm and the sensor adds 10; frames that are right stay below 12
MAX_FACING_DEG = 75.0  # the detector errs by 60 degrees in profile, never by a quarter turn
SUDDEN_TURN_DEG = 60.0  # between two frames; a pirouette turns by 25
STEADY_TURN_DEG = 20.0  # between two frames, at most, by a person who goes on turning while the fit is wrong
MAX_FLIP_FRAMES = 15  # half a second: a turn there and back that is longer was danced
MAX_JUMP_M = 0.15  # away from both neighbours; a fast hand passes between them instead
MAX_GAP_MM = 120.0  # a limb this far from what the depth camera saw there is another one's, or nobody's
MAX_BEYOND = 0.0030  # of the height squared: half a forearm with its hand drawn where nobody is
MAX_OFF = 0.03  # of the height, 5 cm: half as wide as a forearm with its sleeve
MIN_MARGIN = 10.0  # of ``fitting.mirror``: 150 to 1, were errors as independent as energies have it
MIN_SEEN = 0.45  # the detector's confidence in a limb's outer end; hidden ones get 0.05 to 0.4
MIN_DRAWN = 0.0005  # of the height squared: half a hand; less of a hidden limb does no harm
MIN_BEYOND = 0.0010  # of the height squared: half a hand drawn where nobody is
MIN_ALONE = 0.0008  # of the height squared: a hand in the outline is where it is, whatever the detector thinks of it
RUN_FRAMES, BESIDE_FRAMES = 3, 2
MOST_LIMBS = 3  # with more limbs than this in doubt, what is left of a frame is a trunk
BESIDE = "beside frames that are in doubt"
AMBIGUOUS = "could as well point the other way"  # no error that began somewhere, so it says nothing about neighbours
SMALL_LIMB = 0.0015  # so little of a limb is drawn that its depth is that of its edge

_TRUNK = [LANDMARK_NAMES.index(n) for n in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")]


@dataclass(frozen=True)
class Figures:
    """What one frame's fit looks like from outside; NaN is "not measured" and speaks neither for nor against."""

    landmark_px: float  # median landmark error, colour pixels
    height_px: float  # of the person, colour pixels
    silhouette_iou: float
    depth_mm: float = float("nan")  # median distance to the depth points
    facing_deg: float = float("nan")  # between the trunk of the fit and that of the detector's skeleton
    flip_frames: int = 0  # length of the excursion that this frame belongs to: the facing leaps, and leaps back
    usual_iou: float = float("nan")  # of the frames around
    jump_m: float = float("nan")  # how far the furthest joint of the trunk is from where it was and will be
    limbs: tuple[Limb, ...] = field(default=())


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of one frame."""

    status: str  # TRACKED, UNCERTAIN or LOST
    reason: str = ""  # why the frame is not tracked
    limbs: Mapping[str, str] = field(default_factory=dict)  # the limbs that are in doubt, and why

    @property
    def is_sound(self) -> bool:
        """Nothing is in doubt, not even a limb."""
        return self.status == TRACKED and not self.limbs

    @property
    def words(self) -> str:
        """All that is to be said against the frame; empty when it is sound."""
        return self.reason or ", ".join(f"{name} {why}" for name, why in self.limbs.items())


NO_JOINTS = np.zeros(0, int)
NOTHING = Figures(float("nan"), float("nan"), float("nan"))  # of a frame without evidence


def judge(figures: Figures) -> Verdict:
    """What one frame says of itself."""
    landmark = figures.landmark_px / figures.height_px
    off = f"landmarks {figures.landmark_px:.0f} px off"
    little = f"silhouette overlap only {figures.silhouette_iou:.2f}"
    if landmark > LOST_LANDMARK:
        return Verdict(LOST, off)
    if figures.silhouette_iou < LOST_IOU:
        return Verdict(LOST, little)
    doubts = [
        (
            figures.facing_deg > MAX_FACING_DEG,
            f"faces {figures.facing_deg:.0f} degrees away from what the picture says",
        ),
        (
            figures.flip_frames > 0,
            f"facing changed for {figures.flip_frames} frame{'s'[: figures.flip_frames > 1]} only",
        ),
        (landmark > MAX_LANDMARK, off),
        (figures.silhouette_iou < MIN_IOU, little),
        (figures.usual_iou - figures.silhouette_iou > MAX_DIP, f"{little}, {figures.usual_iou:.2f} around it"),
        (figures.depth_mm > MAX_DEPTH_MM, f"depth {figures.depth_mm:.0f} mm off"),
        (figures.jump_m > MAX_JUMP_M, f"a joint jumps {100 * figures.jump_m:.0f} cm and back"),
    ]
    reason = next((words for is_so, words in doubts if is_so), "")
    limbs = {limb.name: why for limb in figures.limbs if (why := _limb_doubt(limb))}
    return _weighed(Verdict(UNCERTAIN if reason else TRACKED, reason, limbs))


def _weighed(verdict: Verdict) -> Verdict:
    """The verdict, uncertain where too many limbs are in doubt."""
    if verdict.status == TRACKED and len(verdict.limbs) > MOST_LIMBS:
        return replace(verdict, status=UNCERTAIN, reason=verdict.words)
    return verdict


def _limb_doubt(limb: Limb) -> str:
    """What speaks against a limb, "" for nothing."""
    is_drawn = limb.drawn > SMALL_LIMB
    # The outline does not vouch for a limb that sticks out of it, and of which it shows less than half.
    is_astray = 2 * limb.alone < limb.drawn and limb.beyond > MIN_BEYOND
    is_guess = limb.seen < MIN_SEEN and limb.drawn > MIN_DRAWN and (limb.alone < MIN_ALONE or is_astray)
    is_drawn_at_all = limb.drawn > MIN_DRAWN
    doubts = [
        (is_drawn and limb.gap_mm > MAX_GAP_MM, f"{limb.gap_mm:.0f} mm off in depth"),
        (limb.beyond > MAX_BEYOND and not vouched(limb), "is drawn beside the person"),
        (is_guess, "is hidden, its place a guess"),
        (is_drawn and limb.off > 2 * MAX_OFF, "is not where it is surely seen"),
        (limb.jump_m > MAX_JUMP_M and not vouched(limb), f"jumps {100 * limb.jump_m:.0f} cm and back"),
        (is_drawn_at_all and limb.margin < 0, "explains the picture better in another pose"),
        (is_drawn_at_all and limb.margin < MIN_MARGIN, AMBIGUOUS),
    ]
    return next((words for is_so, words in doubts if is_so), "")


def vouched(limb: Limb) -> bool:
    """Whether the frame itself shows the limb where it is drawn, whatever masks and neighbouring frames say.

    A racket arm is faster than either allows.  The detector sees it there, or outline and depth show most of it there;
    and none of them objects.
    """
    is_refuted = limb.off > MAX_OFF or limb.gap_mm > MAX_GAP_MM
    is_in_outline = 2 * limb.alone >= limb.drawn > SMALL_LIMB and limb.beyond <= MAX_BEYOND
    is_shown = is_in_outline and limb.gap_mm <= MAX_GAP_MM
    return not is_refuted and (limb.off <= MAX_OFF or is_shown)


def in_question(figures: Figures) -> list[str]:
    """The limbs that are drawn, and whose distance no depth camera has confirmed."""
    return [
        limb.name
        for limb in figures.limbs
        if limb.drawn > MIN_DRAWN and not (limb.drawn > SMALL_LIMB and limb.gap_mm <= MAX_GAP_MM)
    ]


def judge_clip(
    figures: Sequence[Figures | None],
    ahead: np.ndarray,
    joints_m: np.ndarray,
    joints_of: Mapping[str, np.ndarray],
) -> list[Verdict]:
    """The verdict on every frame, by its neighbours too; lost without a reason where nothing was fitted.

    ahead (N, 3): where the trunk of the fit faces; joints_m (N, J, 3); joints_of: the joints of limbs, by their names.
    """
    is_lost = np.array([frame is None or judge(frame).status == LOST for frame in figures], bool)
    # A pose that is certainly wrong says nothing about its neighbours.
    flips = flip_frames(np.where(is_lost[:, None], np.nan, ahead))
    jumps = jumps_m(np.where(is_lost[:, None, None], np.nan, joints_m))
    usual = usual_around([np.nan if frame is None else frame.silhouette_iou for frame in figures])
    verdicts = [
        Verdict(LOST)
        if frame is None
        else judge(replace(_among_neighbours(frame, own, joints_of), flip_frames=int(flip), usual_iou=float(overlap)))
        for frame, flip, overlap, own in zip(figures, flips, usual, jumps, strict=True)
    ]
    return beside_doubt(verdicts)


def usual_around(values: Sequence[float]) -> np.ndarray:
    """(N,) median of the finite values at most DIP_FRAMES away, itself included; NaN where there is none."""
    padded = np.pad(np.asarray(values, float), DIP_FRAMES, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * DIP_FRAMES + 1)
    is_known = np.isfinite(windows).any(1)
    usual = np.full(len(windows), np.nan)
    usual[is_known] = np.nanmedian(windows[is_known], axis=1)
    return usual


def _among_neighbours(frame: Figures, jumps: np.ndarray, joints_of: Mapping[str, np.ndarray]) -> Figures:
    """The figures of a frame with the jumps (J,), as ``jumps_m`` measures them, of its trunk and its limbs."""
    of_trunk, limbs = jumps.copy(), []
    for limb in frame.limbs:
        own = joints_of.get(limb.name, NO_JOINTS)
        limbs.append(replace(limb, jump_m=float(jumps[own].max(initial=0.0))))
        of_trunk[own] = 0.0
    return replace(frame, jump_m=float(of_trunk.max()), limbs=tuple(limbs))


def beside_doubt(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, and doubt in what was believed at most BESIDE_FRAMES from a run of RUN_FRAMES doubts: in frames
    beside doubtful frames, in a limb beside doubts of the same limb.

    A fit that is wrong for a while went wrong a little before a threshold said so, and a figure that dips under its
    threshold for a frame between two doubtful ones has not mended it.
    """
    beside = list(verdicts)
    for i in np.flatnonzero(_near_runs([v.status != TRACKED and AMBIGUOUS not in v.reason for v in verdicts])):
        if beside[i].status == TRACKED:
            beside[i] = replace(beside[i], status=UNCERTAIN, reason=BESIDE)
    for name in sorted({name for verdict in verdicts for name in verdict.limbs}):
        for i in np.flatnonzero(_near_runs([AMBIGUOUS not in v.limbs.get(name, AMBIGUOUS) for v in verdicts])):
            if beside[i].status == TRACKED and name not in beside[i].limbs:
                beside[i] = replace(beside[i], limbs={**beside[i].limbs, name: "is in doubt just before or after"})
    return [_weighed(verdict) for verdict in beside]


def _near_runs(is_doubted: Sequence[bool]) -> np.ndarray:
    """(N,) bool: doubted, between two doubts, or beside a run of both."""
    doubted = np.array(is_doubted, bool)
    doubted[1:-1] |= doubted[:-2] & doubted[2:]
    near = doubted.copy()
    for run in np.split(np.arange(len(doubted)), np.flatnonzero(np.diff(doubted)) + 1):
        if len(run) >= RUN_FRAMES and doubted[run[0]]:
            near[max(run[0] - BESIDE_FRAMES, 0) : run[-1] + BESIDE_FRAMES + 1] = True
    return near


def trunk_ahead(landmarks_m: np.ndarray) -> np.ndarray:
    """(..., 3) unit directions in which the chest of skeletons (..., 33, 3) faces, in their frame of reference."""
    shoulder_l, shoulder_r, hip_l, hip_r = (landmarks_m[..., k, :] for k in _TRUNK)
    ahead = np.cross(shoulder_l - shoulder_r + hip_l - hip_r, shoulder_l + shoulder_r - hip_l - hip_r)  # left x up
    return ahead / np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)


def apart_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...) angle between unit directions (..., 3)."""
    return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))


def flip_frames(ahead: np.ndarray) -> np.ndarray:
    """(N,) int: for frames inside a short excursion of the facing, its length; 0 elsewhere.

    ahead (N, 3), NaN where lost.  An excursion begins with a leap of more than SUDDEN_TURN_DEG, ends with another
    within MAX_FLIP_FRAMES, and the facing after it goes on from the facing before it, as that of a turning person may.
    """
    length = np.zeros(len(ahead), int)
    seen = np.flatnonzero(np.isfinite(ahead).all(1))
    leaps = np.flatnonzero(apart_deg(ahead[seen[1:]], ahead[seen[:-1]]) > SUDDEN_TURN_DEG) + 1
    for start in leaps:
        for stop in leaps[(leaps > start) & (leaps <= start + MAX_FLIP_FRAMES)]:
            may_turn_deg = min(STEADY_TURN_DEG * (stop - start + 1), 120.0)
            goes_on = apart_deg(ahead[seen[start - 1]], ahead[seen[stop]]) < may_turn_deg
            if goes_on and not length[seen[start]]:
                length[seen[start:stop]] = stop - start
    return length


def jumps_m(joints_m: np.ndarray) -> np.ndarray:
    """(N, J) how far a joint is from both neighbouring frames and from the middle between them, metres.

    joints_m (N, J, 3), NaN where lost.  NaN at the ends and beside lost frames.  Steady motion, however fast, gives 0.
    """
    figure = np.full(joints_m.shape[:2], np.nan)
    if len(joints_m) > 2:
        before, here, after = joints_m[:-2], joints_m[1:-1], joints_m[2:]
        to_before, to_after, to_middle = (
            np.linalg.norm(here - there, axis=-1) for there in (before, after, (before + after) / 2)
        )
        # The frames beside an outlier leave the middle of their neighbours too, by half as much: not their fault.
        padded = np.pad(np.nan_to_num(to_middle), ((1, 1), (0, 0)))
        is_peak = to_middle >= np.maximum(padded[:-2], padded[2:])
        away_m = np.minimum(np.minimum(to_before, to_after), to_middle)
        figure[1:-1] = np.where(is_peak | np.isnan(away_m), away_m, 0)
    return figure
