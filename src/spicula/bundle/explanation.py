"""From the evidence map that a graph gives beside its probabilities to Grad-CAM's heatmap, without torch.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV. The
graph's output `evidence` is the sum of equation 2 before its ReLU, of the log-odds of the target: where it is positive
the place spoke for the target, where it is negative for the other class. `bundle.onnx_evidence` puts it into the graph,
`evaluation.gradcam` is the same with torch.
"""

import numpy as np
import numpy.typing as npt

#: The graph's second output.
EVIDENCE = "evidence"

Floats = npt.NDArray[np.float32]


def heat(evidence: Floats, size: tuple[int, int]) -> Floats:
    """Return heatmaps: what is negative is cut off, the rest is enlarged to the image and scaled to its own maximum.

    It compares places within one image, never images.

    Args:
        evidence: (N, h, w), positive for the class that is asked about.
        size: (H, W) of the images in pixels.

    Returns:
        (N, H, W) in [0, 1]; all 0 where nothing in the image speaks for the class.
    """
    import cv2

    positive = np.maximum(evidence, 0).astype(np.float32)
    enlarged = np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in positive])
    highest = enlarged.max(axis=(1, 2), keepdims=True)
    scaled: Floats = np.where(highest > 0, enlarged / np.maximum(highest, np.float32(1e-30)), np.float32(0))
    return scaled
