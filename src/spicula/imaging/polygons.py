"""Polygons as (N, 2) arrays of x and y: an ellipse as one, and what a window leaves of one."""

import math

import numpy as np


def ellipse(x: float, y: float, radius_x: float, radius_y: float, corners: int) -> np.ndarray:
    """Return a polygon with its corners on an ellipse: (corners, 2) float64, equally spaced in angle."""
    angles = np.arange(corners) * (2 * math.pi / corners)
    return np.column_stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)])


def polygon_area(points: np.ndarray) -> float:
    """Return the area of a polygon that does not cross itself, in square pixels (shoelace formula).

    Args:
        points: (N, 2) x and y, in either direction.
    """
    x, y = (points - points[:1]).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def clip_polygon(points: np.ndarray, window: tuple[float, float, float, float]) -> np.ndarray:
    """Return the part of a polygon within a window.

    I. Sutherland and G. Hodgman, "Reentrant polygon clipping", CACM 17(1), 1974. Where a concave polygon falls into
    several parts, edges along the window's border join them; the area is right all the same.

    Args:
        points: (N, 2) x and y.
        window: x0, y0, x1, y1.

    Returns:
        (M, 2) float64; M is 0 where no area is left.
    """
    x0, y0, x1, y1 = window
    corners = [(float(x), float(y)) for x, y in points]
    for axis, bound, sign in ((0, x0, 1), (0, x1, -1), (1, y0, 1), (1, y1, -1)):
        corners = _clip_half(corners, axis, bound, sign)
    clipped = np.array(corners, np.float64).reshape(-1, 2)
    return clipped if len(clipped) >= 3 and polygon_area(clipped) > 0 else np.empty((0, 2))


def _clip_half(corners: list[tuple[float, float]], axis: int, bound: float, sign: int) -> list[tuple[float, float]]:
    """Keep what lies at or above (sign 1), or at or below (sign -1), a bound along one axis."""
    kept = []
    for previous, corner in zip([*corners[-1:], *corners[:-1]], corners, strict=True):
        was_inside, is_inside = sign * (previous[axis] - bound) >= 0, sign * (corner[axis] - bound) >= 0
        if was_inside != is_inside:
            share = (bound - previous[axis]) / (corner[axis] - previous[axis])
            other = previous[1 - axis] + share * (corner[1 - axis] - previous[1 - axis])
            kept.append((bound, other) if axis == 0 else (other, bound))
        if is_inside:
            kept.append(corner)
    return kept
