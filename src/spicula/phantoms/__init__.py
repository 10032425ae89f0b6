"""Synthetic four-view screening exams with known lesions, as DICOM. They show no person."""

from spicula.phantoms.exams import make_exams

__all__ = ["make_exams"]
