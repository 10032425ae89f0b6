"""A frame of one value around an image, such as scanners, screenshots and exports leave: found and cut off."""

import numpy as np

#: A line belongs to a frame if at least this share of it has one value; the rest may be damaged, or a corner's.
UNIFORM = 0.99
#: That value may waver by this share of itself: lossy compression leaves no line quite even.
WAVERS = 0.01
#: A frame ends abruptly: of the line after it at most this share has its value. The background of an image has no such
#: end: beside the first row with some breast, most of it goes on.
GOES_ON = 0.5


def frame_of(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Return how many rows and columns of frame there are: at the top, the bottom, the left and the right.

    A bright frame may have any number of sides. A black one is only told from background where it is on all four.

    Args:
        pixels: (H, W).

    Returns:
        All 0 where there is no frame, and where there is nothing but it.
    """
    top, bottom = _thickness(pixels), _thickness(pixels[::-1])
    rest = pixels[top : pixels.shape[0] - bottom].T
    left, right = (_thickness(rest), _thickness(rest[::-1])) if rest.size else (0, 0)
    if top + bottom >= pixels.shape[0] or left + right >= pixels.shape[1]:
        return 0, 0, 0, 0
    sides = (top, bottom, left, right)
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    is_black = [side > 0 and np.median(edge) == 0 for side, edge in zip(sides, edges, strict=True)]
    if all(is_black):
        return sides
    top, bottom, left, right = (0 if black else side for side, black in zip(sides, is_black, strict=True))
    return top, bottom, left, right


def _thickness(lines: np.ndarray) -> int:
    """Return how many lines from the first on are frame."""
    value = float(np.median(lines[0]))
    for number, line in enumerate(lines):
        share = float(np.mean(np.abs(line - value) <= WAVERS * value))
        if share < UNIFORM:
            return number if share <= GOES_ON else 0
    return 0
