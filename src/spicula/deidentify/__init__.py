"""De-identification of DICOM headers by the basic profile of PS3.15, with pseudonyms that are the same every time."""

from spicula.deidentify.file import deidentify_file
from spicula.deidentify.pseudonyms import Pseudonyms

__all__ = ["Pseudonyms", "deidentify_file"]
