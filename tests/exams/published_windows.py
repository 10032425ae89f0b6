# ruff: noqa: PLR0912, PLR0917  one sentence after another, as the description has them
"""The random windows of the published classifier, after its description sentence by sentence: plain, slow, obvious."""

import cv2
import numpy as np

VIEWS = ("L-CC", "R-CC", "L-MLO", "R-MLO")
SIZES = {"CC": (2677, 1942), "MLO": (2974, 1748)}


def published_windows(images, centers, windows=10, sizes=SIZES, max_shift=100, max_size_change=100):
    """Yield for every window a dict view -> (C, H, W) float32.

    Args:
        images: view -> list of images, each a list of channels (H, W) that points to the right: the image, and then its
            heatmaps where there are any.
        centers: view -> list of (y, x).
        windows: how many.
        sizes: of the windows, by angle.
        max_shift: of a window.
        max_size_change: of a border.
    """
    rng = np.random.RandomState(0)
    for _ in range(windows):
        exam = {}
        for view in VIEWS:
            chosen = rng.randint(0, len(images[view]))
            shift = rng.uniform(-1, 1, 2)
            borders = rng.uniform(-1, 1, 4)
            channels, center = images[view][chosen], centers[view][chosen]
            args = (center, view.split("-")[1], shift, borders, sizes, max_shift, max_size_change)
            found = [_window(np.asarray(channel, np.float32), *args) for channel in channels]
            image = found[0]
            found[0] = (image - np.mean(image)) / max(np.std(image), np.float32(1e-5))
            exam[view] = np.stack(found)
        yield exam


def _window(image, center, angle, shift, borders, sizes, max_shift, max_size_change):
    height, width = sizes[angle]
    margin = max_shift + max_size_change
    top = center[0] - height // 2
    bottom = center[0] + height - height // 2
    left = center[1] - width // 2
    right = center[1] + width - width // 2

    if angle == "CC":
        if image.shape[0] < height + 2 * margin:
            total = height - image.shape[0] + 2 * margin
            front = int(total / 2)
            image = np.pad(image, ((front, total - front), (0, 0)))
            top, bottom = margin, margin + height
    elif image.shape[0] < height + margin:
        image = np.pad(image, ((0, height - image.shape[0] + margin), (0, 0)))
        top, bottom = 0, height
    if image.shape[1] < width + margin:
        image = np.pad(image, ((0, 0), (0, width - image.shape[1] + margin)))
        left, right = 0, width

    if top < 0:
        top, bottom = 0, bottom - top
    if bottom > image.shape[0]:
        top, bottom = top - (bottom - image.shape[0]), image.shape[0]
    if left < 0:
        left, right = 0, right - left
    if right > image.shape[1]:
        left, right = left - (right - image.shape[1]), image.shape[1]

    y, x = shift
    if top == 0:
        y = np.abs(y)
    elif bottom == image.shape[0]:
        y = -np.abs(y)
    if left == 0:
        x = np.abs(x)
    elif right == image.shape[1]:
        x = -np.abs(x)
    room_y = top if y < 0 else image.shape[0] - bottom
    room_x = left if x < 0 else image.shape[1] - right
    move_y = int(np.round(min(max_shift, room_y) * y))
    move_x = int(np.round(min(max_shift, room_x) * x))
    top, bottom, left, right = top + move_y, bottom + move_y, left + move_x, right + move_x

    most = min(max_size_change, top, image.shape[0] - bottom, left, image.shape[1] - right)
    if height >= width:
        most_y, most_x = most, int(np.round(most * width / height))
    else:
        most_y, most_x = int(np.round(most * height / width)), most
    top += int(np.round(most_y * borders[0]))
    bottom += int(np.round(most_y * borders[1]))
    left += int(np.round(most_x * borders[2]))
    right += int(np.round(most_x * borders[3]))

    found = image[top:bottom, left:right]
    if found.shape != (height, width):
        found = cv2.resize(found, (width, height), interpolation=cv2.INTER_CUBIC)
    return found
