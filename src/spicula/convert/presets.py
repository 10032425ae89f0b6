"""The presets that crop, scale or stretch, as values of the one preprocessing of Spicula.

`raw` and `display` are not among them: their pixels stay where they are. `raw` is what `imaging.readers.read_pixels`
returns, `display` what `imaging.display.read_display` does.
"""

from spicula.imaging.preprocess import Preprocess

#: Limit of CLAHE in studies of VinDr-Mammo; its 8 x 8 tiles are those of `imaging.contrast.clahe`.
VINDR_CLAHE = 2.0


def preprocess_of(preset: str, *, clahe: bool = False, crop: bool = False) -> Preprocess | None:
    """Return what a preset does, or None where pixels stay in their places (raw, display).

    Args:
        preset: `spicula.convert.settings.Preset`.
        clahe: vindr: equalise local contrast.
        crop: vindr: to the breast, found by Otsu's threshold.
    """
    if preset == "vindr":
        # As networks for VinDr-Mammo were trained: every image from its own minimum to its maximum, 8 bits, 256 x 256
        # by area. Only the order differs: we resize before we stretch, and round once.
        return Preprocess(
            size=(256, 256),
            channels=1,
            bits=8,
            crop="breast" if crop else "none",
            contrast="percentile",
            percentiles=(0, 100),
            clahe=VINDR_CLAHE if clahe else None,
        )
    if preset == "whole-image":
        # L. Shen et al., "Deep learning to improve breast cancer detection on screening mammography", Scientific
        # Reports 9:12495, 2019: whole images of 1152 x 896 (rows, columns), 16 bits, the aspect not kept.
        return Preprocess(size=(1152, 896), channels=1, bits=16)
    return None
