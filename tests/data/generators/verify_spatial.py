"""Answers about rooms once more, from the text of the prompt, with matrices and dense samples of surfaces."""

from __future__ import annotations

import re

import numpy as np

NUMBERS = r"\(([-\d., ]+)\)"


def vector(text):
    return np.array([float(part) for part in text.split(",")])


def read(prompt):
    """Size of the room, name -> (middle, size), cameras (place, matrix with rows right, up, forward)."""
    size = [float(x) for x in re.search(r"is ([\d.]+) m wide.* ([\d.]+) m deep.* ([\d.]+) m high", prompt).groups()]
    things = {
        name: (vector(at), vector(extent))
        for name, at, extent in re.findall(rf"- (\w+ \w+): middle {NUMBERS}, size {NUMBERS}", prompt)
    }
    cameras = []
    for at, yaw, pitch in re.findall(rf"camera(?: \d)?: at {NUMBERS}, yaw (-?\d+), pitch (-?\d+)", prompt):
        a, b = np.radians(float(yaw)), np.radians(float(pitch))
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        tilt = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
        forward, left, up = (turn @ tilt).T
        cameras.append((vector(at), np.array([-left, up, forward]), float(yaw), float(pitch)))
    return np.array(size), things, cameras


def nearest(a, b):
    """Distance of two boxes by alternating projections onto them."""
    (ca, sa), (cb, sb) = a, b
    p = ca
    for _ in range(50):
        q = np.clip(p, cb - sb / 2, cb + sb / 2)
        p = np.clip(q, ca - sa / 2, ca + sa / 2)
    return float(np.linalg.norm(p - q))


def seen_share(things, camera, name, steps=14):
    """Share of the surface, but for the lower side, that a camera sees."""
    at, axes = camera[:2]
    middle, size = things[name]
    grid = (np.arange(steps) + 0.5) / steps * 2 - 1
    u, v = (part.ravel() for part in np.meshgrid(grid, grid))
    total = seen = 0.0
    for axis in range(3):
        for sign in (-1, 1):
            if axis == 2 and sign == -1:
                continue
            points = np.insert(np.stack([u, v], 1), axis, sign, 1) * size / 2 + middle
            area = np.prod(np.delete(size, axis))
            total += area
            # A side that looks away shows nothing.
            if (points[0] - at)[axis] * sign >= 0:
                continue
            right, up, ahead = ((points - at) @ axes.T).T
            inside = (
                (ahead > 0)
                & (abs(right) <= ahead * np.tan(np.radians(40)))
                & (abs(up) <= ahead * np.tan(np.radians(30)))
            )
            for other, (c, s) in things.items():
                if other != name:
                    with np.errstate(divide="ignore", invalid="ignore"):
                        ends = np.sort(
                            np.stack([(c - s / 2 - at) / (points - at), (c + s / 2 - at) / (points - at)]), 0
                        )
                    inside &= ~(ends[0].max(1).clip(0) < ends[1].min(1).clip(max=1))
            seen += area * inside.mean()
    return seen / total


def named(row, things):
    question = row["prompt"].split("\n\n")[-1]
    found = [(question.index(name), name) for name in things if name in question]
    return [name for _, name in sorted(found)]


def near(row, value, slack):
    return None if abs(float(row["answer"]) - value) <= slack + 1e-9 else f"{value}"


def sides(row, amounts, least):
    """Directions by their signs, of amounts that are not too small."""
    want = {(plus if amount > 0 else minus) for amount, plus, minus in amounts if abs(amount) >= least}
    return None if set(row["answer"].split(", ")) == want else f"{want}"


def wrong(row):
    """Why the answer is wrong; None if it is right."""
    size, things, cameras = read(row["prompt"])
    names, task, said = named(row, things), row["task"], row["answer"]
    boxes = [things[name] for name in names]
    if task == "object_counting":
        kind = re.search(r"How many (\w+)s are", row["prompt"])[1]
        return near(row, sum(name.split()[1] == kind for name in things), 0)
    if task == "object_size":
        return near(row, 100 * boxes[0][1].max(), 0.5)
    if task == "absolute_distance":
        return near(row, nearest(*boxes), 0.005)
    if task == "relative_distance":
        far = {name: nearest(boxes[0], things[name]) for name in names[1:]}
        best = min(far, key=far.get)
        clear = sorted(far.values())[1] - far[best] > 0.14
        return None if said == best and clear else f"{far}"
    if task == "relative_direction":
        stand, look, asked = (c[:2] for c, _ in boxes)
        ahead = (look - stand) / np.linalg.norm(look - stand)
        to = (asked - stand) / np.linalg.norm(asked - stand)
        left = np.array([-ahead[1], ahead[0]])
        return sides(row, [(ahead @ to, "front", "back"), (left @ to, "left", "right")], 0.2)
    if task == "room_size":
        return near(row, size[0] * size[1], 0.005)
    pictured = ("distance_cam_obj", "depth_order_obj_obj", "direction_obj_obj", "position_cam_obj")
    if task in pictured and any(seen_share(things, cameras[0], name) < 0.02 for name in names):
        return "it is hardly seen"
    local = [cameras[0][1] @ (c - cameras[0][0]) for c, _ in boxes] if cameras else []
    point = np.full(3, 1e-9)
    if task == "distance_cam_obj":
        return near(row, nearest((cameras[0][0], point), boxes[0]), 0.006)
    if task == "depth_order_obj_obj":
        gap = local[1][2] - local[0][2]
        want = "same" if abs(gap) < 0.1 else names[0] if gap > 0 else names[1]
        return None if said == want else want
    if task == "direction_obj_obj":
        right, up, far = local[0] - local[1]
        return sides(row, [(right, "right", "left"), (up, "above", "below"), (far, "behind", "front")], 0.2)
    first, second = cameras
    right, up, ahead = first[1] @ (second[0] - first[0])
    if task == "motion_camera":
        return sides(row, [(ahead, "forward", "backward"), (right, "right", "left"), (up, "up", "down")], 0.25)
    if task == "rotation_camera":
        turn = (second[2] - first[2] + 540) % 360 - 180
        return sides(row, [(turn, "left", "right"), (second[3] - first[3], "up", "down")], 6)
    if task == "distance_cam_cam":
        return near(row, np.linalg.norm(second[0] - first[0]), 0.005)
    if task == "elevation_cam_cam":
        high = first[0][2] - second[0][2]
        want = "same level" if abs(high) < 0.1 else "first" if high > 0 else "second"
        return None if said == want else want
    if task == "position_cam_obj":
        right, up, ahead = second[1] @ (boxes[0][0] - second[0])
        return sides(row, [(ahead, "front", "back"), (right, "right", "left"), (up, "above", "below")], 0.25)
    if task == "distance_compare":
        a, b = (nearest((camera[0], point), boxes[0]) for camera in cameras)
        want = "first" if a < b - 0.2 else "second" if b < a - 0.2 else "about the same"
        return None if said == want else want
    a, b = (seen_share(things, camera, names[0]) for camera in cameras)
    holds = {
        "first": a - b > 0.01,
        "second": b - a > 0.01,
        "same": abs(a - b) < 0.05 and min(a, b) > 0,
        "neither": max(a, b) < 0.05,
    }
    return None if holds[said] else f"{a:.3f} and {b:.3f}"
