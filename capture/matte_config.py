"""The settings of stage 02, and the names of its methods: what ``matters`` and ``edges`` read, ``matting`` shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from capture.errors import UserError
from capture.local_model import KNOWN

AUTO, EMBEDDED, REMBG, PLATE, CHROMA, GIVEN = "auto", "embedded", "rembg", "plate", "chroma", "given"
METHODS = (AUTO, EMBEDDED, REMBG, PLATE, CHROMA, GIVEN)


@dataclass(frozen=True)
class MatteConfig:
    """How masks are made."""

    method: str = AUTO  # auto, embedded, rembg, plate, chroma or given: see ``capture.matters``
    model: str = field(default="u2net_human_seg", metadata={"file": True, "words": tuple(KNOWN)})  # rembg: or a file
    weights_sha256: str = ""  # rembg: what the weights must be; empty = what rembg publishes
    masks: str = field(default="", metadata={"file": True})  # given: a folder; empty = those of the recording
    background: str = field(default="", metadata={"file": True})  # plate: a picture; empty = that of the recording
    learn_room: bool = True  # off: what would the network and depth alone give?
    use_depth: bool = True  # off: what would colour alone give?
    steady: bool = True  # median with the neighbouring frames, moved along the optical flow
    edge_side_px: int = 512  # the edge is solved on a crop of this size; 640 takes twice the time for the same IoU
    band: float = 0.01  # half width of the uncertain rim, as a part of the crop's longer side
    trust: float = 0.02  # weight of network and depth against the colours inside the rim
    smoothness: float = 1e-4  # closed-form matting's epsilon: higher ignores weak colour edges and noise
    gate_m: float = 0.6  # arms reach this far out of the trunk's plane; beyond is somebody or something else
    workers: int = field(default=2, metadata={"cosmetic": True})  # processes

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"matte.method = {self.method}: there are {', '.join(METHODS)}")
        for name in ("band", "trust", "smoothness", "gate_m"):
            if not getattr(self, name) > 0:
                raise UserError(f"matte.{name} = {getattr(self, name)}: must be positive")
        if self.edge_side_px < 64 or self.workers < 1:
            raise UserError(
                f"matte.edge_side_px = {self.edge_side_px}, matte.workers = {self.workers}: at least 64 and 1"
            )
