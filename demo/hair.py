"""The pony tail: a damped chain that hangs from the head and keeps off the back.

T samples, J joints.  Enters: bone transforms.  Leaves: the same with the tail's joints turned along the chain.
"""

from __future__ import annotations

import numpy as np

from demo.character import Character

GRAVITY = -9.81
DAMPING_PER_S = 3.0


def swing_tail(character: Character, worlds: np.ndarray, step_s: float) -> np.ndarray:
    """Bone transforms with the pony tail's joints hung as a damped chain; worlds (T, J, 4, 4) is not changed.

    The chain keeps off the back and the head by spheres that follow the skeleton.
    """
    chain = [j for j, name in enumerate(character.joint_names) if name.startswith("hair")]
    if not chain:  # short hair
        return worlds
    head = int(character.joint_parents[chain[0]])
    rest = character.joints_m[chain]
    tip = rest[-1] + (rest[-1] - rest[-2])
    nodes_rest = np.concatenate([rest, tip[None]])
    lengths = np.linalg.norm(np.diff(nodes_rest, axis=0), axis=1)
    obstacles = [
        (head, character.joints_m[head] + (0, 0.0, 0.055), 0.098),
        (character.joint("neck01"), character.joints_m[character.joint("neck01")] + (0, 0.02, 0.0), 0.085),
    ]
    upper = character.joint("spine01")
    obstacles += [(upper, character.joints_m[upper] + (x, -0.015, 0.03), 0.125) for x in (-0.07, 0.07)]

    def carry(joint: int, world: np.ndarray, point: np.ndarray) -> np.ndarray:
        return (point - character.joints_m[joint]) @ world[joint, :3, :3].T + world[joint, :3, 3]

    result = worlds.copy()
    nodes = carry(head, worlds[0], nodes_rest)
    before = nodes.copy()
    keep = np.exp(-DAMPING_PER_S * step_s)
    for sample in range(-int(1.0 / step_s), len(worlds)):
        world = worlds[max(sample, 0)]
        styled = carry(head, world, nodes_rest)
        nodes, before = nodes + (nodes - before) * keep, nodes
        nodes[:, 2] += GRAVITY * step_s**2
        nodes += (styled - nodes) * (1 - (1 - np.array([1, 1, 0.2, 0.05, 0.02, 0.01])[:, None]) ** (step_s * 60))
        for _ in range(8):
            nodes[:2] = styled[:2]
            for i in range(1, len(nodes) - 1):
                step = nodes[i + 1] - nodes[i]
                nodes[i + 1] = nodes[i] + step * (lengths[i] / np.linalg.norm(step))
            for joint, point, radius in obstacles:
                away = nodes[2:] - carry(joint, world, point)
                distance = np.linalg.norm(away, axis=1, keepdims=True)
                nodes[2:] += away * np.maximum((radius + 0.025) / distance - 1, 0)
        if sample >= 0:
            result[sample] = _aim(result[sample], world[head, :3, :3], chain, nodes, nodes_rest)
    return result


def _aim(
    world: np.ndarray, frame: np.ndarray, chain: list[int], nodes: np.ndarray, nodes_rest: np.ndarray
) -> np.ndarray:
    """Turn each chain joint so that its segment points to the next node."""
    for i, joint in enumerate(chain):
        rest = frame @ (nodes_rest[i + 1] - nodes_rest[i])
        now = nodes[i + 1] - nodes[i]
        rest, now = rest / np.linalg.norm(rest), now / np.linalg.norm(now)
        axis = np.cross(rest, now)
        cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        turn = np.eye(3) + cross + cross @ cross / (1 + float(np.clip(rest @ now, -0.95, 1)))
        frame = turn @ frame
        world[joint, :3, :3] = frame
        world[joint, :3, 3] = nodes[i]
    return world
