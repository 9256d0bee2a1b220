"""Which joint of a foreign skeleton is which: names of many dialects to the roles a person has.

CMU (lShldr, LeftUpLeg), Mixamo (mixamorig:LeftArm), Bandai-Namco (UpperArm_L), SMPL (left_hip), Anny (upperarm01.L).
A role is a word such as ``upperarm``, with ``.L`` or ``.R`` where there are two.
"""

from __future__ import annotations

import re

from capture.errors import UserError

# What a name, stripped of its side, may mean.  Where two meanings are listed, the company it keeps decides (see below).
VOCABULARY = {
    "clavicle": ("clavicle", "collar", "collarbone"),
    "upperarm": ("upperarm", "uparm", "arm", "shldr", "shldrbend"),
    "lowerarm": ("lowerarm", "forearm", "loarm", "elbow", "lowarm", "forearmbend"),
    "hand": ("wrist", "hand"),
    "upperleg": ("upperleg", "upleg", "thigh", "hip", "femur", "thighbend"),
    "lowerleg": ("lowerleg", "loleg", "lowleg", "knee", "shin", "calf", "tibia"),
    "foot": ("ankle", "foot"),
    "toe": ("toe", "toes", "toebase", "ball"),
}
CENTRAL = {"head": ("head",), "neck": ("neck",)}
PLAIN = {  # the limbs that every motion must have, in the words of the error message
    "upperarm": "upper arm",
    "lowerarm": "elbow",
    "hand": "wrist",
    "upperleg": "upper leg",
    "lowerleg": "knee",
    "foot": "ankle",
}
REQUIRED = tuple(f"{role}.{side}" for role in PLAIN for side in "LR")

_PREFIX = re.compile(r"^(?:.*:|mixamorig\d*_?|bip\d*[ _]|joint_|jnt_|m_avg_|def[-_]|b_)", re.IGNORECASE)


def split_side(name: str) -> list[tuple[str, str]]:
    """Possible readings (side, core) of a joint's name; side is "L", "R" or "", the core is lower-case letters only."""
    name = _PREFIX.sub("", name)
    readings = []
    for side, word in (("L", "left"), ("R", "right")):
        letter = side.lower()
        if word in name.lower():
            readings.append((side, re.sub(word, "", name, flags=re.IGNORECASE)))
        elif match := re.match(rf"^(.*)[._ -]{letter}$|^{letter}[._ -](.*)$", name, re.IGNORECASE):
            readings.append((side, match.group(1) or match.group(2)))
        elif match := re.match(rf"^(.*)[._ -]{letter}[._ -](.*)$", name, re.IGNORECASE):
            readings.append((side, match.group(1) + match.group(2)))
        elif name[:1].lower() == letter:
            readings.append((side, name[1:]))  # lShldr, lshoulder; only counts when the rest is a known word
    readings.append(("", name))
    return [(side, re.sub(r"[^a-z]", "", core.lower())) for side, core in readings]


def find_roles(joint_names: tuple[str, ...], parents: tuple[int, ...], name: str) -> dict[str, int]:
    """Role to joint index.  Always has the REQUIRED limbs plus ``pelvis`` and ``chest``; ``head``, ``neck``,
    ``clavicle.*`` and ``toe.*`` where the skeleton has them.

    Raises UserError, naming the missing joints, when the skeleton is not that of a whole person.
    """
    cores: dict[tuple[str, str], int] = {}  # the first joint of a name wins: parents come before children
    for index, joint in enumerate(joint_names):
        for side, core in split_side(joint):
            cores.setdefault((side, core), index)
    roles: dict[str, int] = {}
    for role, words in VOCABULARY.items():
        for side in "LR":
            found = [cores[side, word] for word in words if (side, word) in cores]
            if found:
                roles[f"{role}.{side}"] = found[0]
    for role, words in CENTRAL.items():
        if ("", words[0]) in cores:
            roles[role] = cores["", words[0]]
    for side in "LR":
        _settle_ambiguities(roles, cores, side)
    missing = [role for role in REQUIRED if role not in roles]
    if missing:
        plain = ", ".join(f"{'left' if m.endswith('L') else 'right'} {PLAIN[m[:-2]]}" for m in missing)
        known = ", ".join(joint_names[:12]) + (", …" if len(joint_names) > 12 else "")
        raise UserError(
            f"{name}: no joint found for {plain}; its joints are {known}; rename them like LeftUpLeg, LeftArm"
        )
    roles["pelvis"] = common_ancestor(roles["upperleg.L"], roles["upperleg.R"], parents)
    roles["chest"] = common_ancestor(roles["upperarm.L"], roles["upperarm.R"], parents)
    return roles


def _settle_ambiguities(roles: dict[str, int], cores: dict[tuple[str, str], int], side: str) -> None:
    """A ``shoulder`` is the collar bone beside an upper arm (Mixamo) and the upper arm otherwise (SMPL); a ``leg`` is
    the shin beside an upper leg; a ``foot`` is the toes beside an ankle (SMPL).  Fills in ``roles``."""
    shoulder, leg, foot = (cores.get((side, word)) for word in ("shoulder", "leg", "foot"))
    if shoulder is not None:
        if f"upperarm.{side}" not in roles:
            roles[f"upperarm.{side}"] = shoulder
        elif f"clavicle.{side}" not in roles:
            roles[f"clavicle.{side}"] = shoulder
    if leg is not None and f"lowerleg.{side}" not in roles and f"upperleg.{side}" in roles:
        roles[f"lowerleg.{side}"] = leg
    if foot is not None and (side, "ankle") in cores and f"toe.{side}" not in roles:
        roles[f"toe.{side}"] = foot


def common_ancestor(first: int, second: int, parents: tuple[int, ...]) -> int:
    """The nearest joint that two joints hang from."""
    ancestors = []
    while first >= 0:
        ancestors.append(first)
        first = parents[first]
    while second not in ancestors:
        second = parents[second]
    return second
