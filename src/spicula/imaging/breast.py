"""Where the breast is in a mammogram, and which way it points: by threshold and shape, without a trained model.

Works on films and digital images, bright breast on a darker background. Limits: bright objects that overlap the breast
(a thumb, a shoulder, a label on the skin) are taken for breast; the outermost, almost black millimetres of fatty tissue
can fall outside the mask, which is why crops keep a margin; a bright frame thicker than 5 % of the image is not told
apart from tissue.
"""

import cv2
import numpy as np

from spicula.imaging.contrast import to_grey

#: The mask is found on a copy whose longer side is at most this many pixels.
WORKING_SIDE_PX = 512
#: A largest component under this share of the image is not a breast: nothing was found.
LEAST_SHARE = 0.01
#: Below this absolute value of `orientation_evidence` the laterality decides.
WEAK_EVIDENCE = 0.2

# Shares of the longer side of the image. A film's bright frame and its labels are thinner than the first, specks and
# scratches thinner than the second.
_THICK, _THIN = 1 / 20, 1 / 56
# Background is padding where even the 99th percentile of a row or column of the (0 to 255) image is at most this.
_PADDING = 2
# Share of exactly black pixels from which they are the background (digital images) and not blackened labels.
_BLACK_BACKGROUND = 0.1
# A fatty rim stands out from the background by at least this share of the contrast between tissue and the rest.
_RIM_CONTRAST = 0.1


def segment_breast(image: np.ndarray) -> np.ndarray:
    """Return the mask of the breast in a mammogram.

    Otsu's threshold (IEEE Trans. SMC 9(1), 1979) on the square root of the intensities splits off the bright tissue; a
    second one among what is darker splits the fatty rim from the background. Rows and columns of padding take no part.
    An opening cuts off frames and labels that touch the breast, the largest component is kept, its holes are filled.

    Args:
        image: (H, W) or (H, W, 3), uint8 or uint16, breast bright.

    Returns:
        (H, W) bool; all False when there is nothing to find, as in an image of one value.
    """
    grey = to_grey(image)
    height, width = grey.shape
    nothing = np.zeros((height, width), bool)
    small = _working_copy(grey)
    if small is None:
        return nothing
    bright = (small > _background_threshold(small)).astype(np.uint8)
    mask = _breast_component(bright)
    if mask.mean() < LEAST_SHARE:
        return nothing
    full: np.ndarray = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    return full.astype(bool)


def bounding_box(mask: np.ndarray, margin: float = 0.0) -> tuple[int, int, int, int] | None:
    """Return the smallest window around a mask as (top, left, bottom, right) in pixels, the last two exclusive.

    Args:
        mask: (H, W) bool.
        margin: how much wider on every side, as a share of the window's longer side; never beyond the image.

    Returns:
        The window, or None when the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    extra = round(margin * max(bottom - top, right - left))
    height, width = mask.shape
    return max(0, top - extra), max(0, left - extra), min(height, bottom + extra), min(width, right + extra)


def widen(mask: np.ndarray, margin: float) -> np.ndarray:
    """Return a mask that reaches farther on every side, by `margin` times the image's longer side: (H, W) bool."""
    wider: np.ndarray = cv2.dilate(mask.astype(np.uint8), _disk(2 * margin * max(mask.shape)))
    return wider.astype(bool)


def orientation_evidence(mask: np.ndarray) -> float:
    """Return from which edge the breast enters the image: 1 surely the left, -1 surely the right, 0 no telling.

    The chest wall is a straight vertical line (where detector or film end), the skin side is curved. With L and R the
    mean absolute deviations of each row's first and last mask column from their medians, the evidence is
    (R - L) / (R + L).

    Args:
        mask: (H, W) bool.
    """
    rows = mask[mask.any(axis=1)]
    if rows.size == 0:
        return 0.0
    first, last = rows.argmax(axis=1), rows.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)
    left, right = (float(np.abs(edge - np.median(edge)).mean()) for edge in (first, last))
    return (right - left) / (right + left) if right + left > 0 else 0.0


def faces_left(image_or_mask: np.ndarray, laterality: str | None = None) -> bool:
    """Return whether the breast points to the left, that is, enters from the right edge of the image.

    The pixels decide. Only where they say too little (`WEAK_EVIDENCE`) the laterality does, by the usual way of hanging
    mammograms, chest walls towards each other: a right breast points to the left.

    Args:
        image_or_mask: (H, W) bool mask, or an image as `segment_breast` takes it.
        laterality: the side of the patient, L or R, where known.
    """
    mask = image_or_mask if image_or_mask.dtype == bool else segment_breast(image_or_mask)
    evidence = orientation_evidence(mask)
    if abs(evidence) < WEAK_EVIDENCE and laterality is not None:
        return laterality == "R"
    return evidence < 0


def _working_copy(grey: np.ndarray) -> np.ndarray | None:
    """Return a small, smoothed uint8 copy of square-root intensities, or None for an image of one value."""
    scale = WORKING_SIDE_PX / max(grey.shape)
    if scale < 1:
        size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    values = grey.astype(np.float32)
    # Labels are brighter than any tissue: without the percentile they would darken everything else.
    low, high = float(values.min()), float(np.percentile(values, 99.5))
    if high <= low:
        return None
    values = np.sqrt(np.clip((values - low) / (high - low), 0, 1))
    smooth: np.ndarray = cv2.medianBlur(np.rint(255 * values).astype(np.uint8), 5)
    return smooth


def _background_threshold(small: np.ndarray) -> int:
    film = small[:, np.percentile(small, 99, axis=0) > _PADDING]
    film = film[np.percentile(film, 99, axis=1) > _PADDING] if film.size else film
    if film.size == 0:
        film = small
    threshold = _otsu(film)
    dark, bright = film[film <= threshold], film[film > threshold]
    if (film <= _PADDING).mean() < _BLACK_BACKGROUND:
        dark = dark[dark > _PADDING]
    lower = _otsu(dark) if dark.size else threshold
    rim, background = dark[dark > lower], dark[dark <= lower]
    if not (rim.size and background.size and bright.size):
        return threshold
    if rim.mean() - background.mean() < _RIM_CONTRAST * (bright.mean() - dark.mean()):
        return threshold  # tissue that ends abruptly: the second threshold only halved the noise of the background
    return lower


def _otsu(values: np.ndarray) -> int:
    column = np.ascontiguousarray(values).reshape(-1, 1)
    return int(cv2.threshold(column, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0])


def _breast_component(bright: np.ndarray) -> np.ndarray:
    longer = max(bright.shape)
    thick, thin = _disk(longer * _THICK), _disk(longer * _THIN)
    core = _largest(cv2.morphologyEx(bright, cv2.MORPH_OPEN, thick))
    # The opening rounded the corners off; what of the original lies this close to the core comes back.
    mask = _largest(bright & cv2.dilate(core, _disk(longer * _THICK / 2)))
    # Beyond the border the image goes on as it ends, so that dark stripes which run into the border are closed too.
    border = thick.shape[0]
    padded = cv2.copyMakeBorder(mask, border, border, border, border, cv2.BORDER_REPLICATE)
    padded = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, thick)
    padded = cv2.morphologyEx(padded, cv2.MORPH_OPEN, thin)
    mask = _largest(np.ascontiguousarray(padded[border:-border, border:-border]))
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, outlines, -1, 1, thickness=cv2.FILLED)
    return mask


def _disk(diameter: float) -> np.ndarray:
    side = max(1, 2 * int(diameter / 2) + 1)
    element: np.ndarray = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return element


def _largest(mask: np.ndarray) -> np.ndarray:
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count < 2:
        return np.zeros_like(mask)
    largest: np.ndarray = labels == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()
    return largest.astype(np.uint8)
