"""A frame of one value around an image, such as scanners, screenshots and exports leave: found, to be cut off."""

import numpy as np

from spicula.exams.stages.background import find_background

Sides = tuple[int, int, int, int]

#: A line belongs to a frame if at least this share of it has one value; the rest may be damaged, or a corner's.
UNIFORM = 0.99
#: That value may waver by this share of itself: lossy compression leaves no line quite even.
WAVERS = 0.01
#: A frame ends abruptly: of the line after it at most this share has its value. Background mostly goes on beside the
#: first row with some breast.
GOES_ON = 0.5
#: Standard deviations of a noisy background within which a frame has its value.
DEVIATIONS = 5
_AT_ONCE = 32  # lines


def frame_of(pixels: np.ndarray) -> Sides:
    """Return how many rows and columns of frame there are: at the top, the bottom, the left and the right.

    A bright frame may have any number of sides; a black one has all four: fewer are a margin, which harms nobody.
    Lines of the value that the background has within it are background: above a breast that is cut off straight, as in
    MLO views, that too ends abruptly.

    Args:
        pixels: (H, W).

    Returns:
        All 0 where there is no frame, and where there is nothing but it.
    """
    top, bottom = _thickness(pixels), _thickness(pixels[::-1])
    rest = pixels[top : pixels.shape[0] - bottom].T
    left, right = (_thickness(rest), _thickness(rest[::-1])) if rest.size else (0, 0)
    sides = (top, bottom, left, right)
    if not any(sides) or top + bottom >= pixels.shape[0] or left + right >= pixels.shape[1]:
        return 0, 0, 0, 0
    background = find_background(without(pixels, sides))
    level, noise = (0, 0.0) if background is None else (background.level, background.noise)
    values = [float(np.median(edge)) for edge in (pixels[0], pixels[-1], rest[0], rest[-1])]
    differs = [abs(value - level) > max(WAVERS * value, DEVIATIONS * noise) for value in values]
    if not (all(sides) and all(differs)):
        differs = [other and value > 0 for other, value in zip(differs, values, strict=True)]
    top, bottom, left, right = (side if other else 0 for side, other in zip(sides, differs, strict=True))
    return top, bottom, left, right


def without(pixels: np.ndarray, sides: Sides) -> np.ndarray:
    """Return the image within a frame, a view: (h, w)."""
    top, bottom, left, right = sides
    return pixels[top : pixels.shape[0] - bottom, left : pixels.shape[1] - right]


def _thickness(lines: np.ndarray) -> int:
    """Return how many lines from the first on are of one value, and end abruptly."""
    value = float(np.median(lines[0]))
    low, high = value * (1 - WAVERS), value * (1 + WAVERS)
    for first in range(0, len(lines), _AT_ONCE):
        some = lines[first : first + _AT_ONCE]
        shares = np.count_nonzero((some >= low) & (some <= high), axis=1) / lines.shape[1]
        ends = np.flatnonzero(shares < UNIFORM)
        if ends.size:
            return first + int(ends[0]) if shares[ends[0]] <= GOES_ON else 0
    return 0
