"""The coded views of mammography and their modifiers: DICOM PS3.16, CID 4014 and CID 4015.

Each code stands here as SNOMED CT has it and as SNOMED RT had it, which most equipment still writes (under the
designators SRT, SNM3 and 99SDM). Values of the two never collide, so that the designator need not be looked at.
"""

from collections.abc import Mapping

#: The view that stands for "tissue specimen from breast".
SPECIMEN = "SPECIMEN"

#: CID 4014: code value -> label of the ACR Mammography Quality Control Manual 1999 (the last column of the table).
VIEWS: Mapping[str, str] = {
    "399260004": "ML",
    "R-10224": "ML",
    "399368009": "MLO",
    "R-10226": "MLO",
    "399352003": "LM",
    "R-10228": "LM",
    "399099002": "LMO",
    "R-10230": "LMO",
    "399162004": "CC",
    "R-10242": "CC",
    "399196006": "FB",
    "R-10244": "FB",
    "399188001": "SIO",
    "R-102D0": "SIO",
    "441555000": "ISO",
    "R-40AAA": "ISO",
    "399192008": "XCCL",
    "R-1024A": "XCCL",
    "Y-X1770": "XCCL",  # as it was before it had a valid code
    "399101009": "XCCM",
    "R-1024B": "XCCM",
    "Y-X1771": "XCCM",
    "R-102CF": "XCC",  # exaggerated, no direction given; no longer in the table
    "127457009": SPECIMEN,
    "G-8310": SPECIMEN,
}

#: CID 4015: code value -> flag of the Index.
MODIFIERS: Mapping[str, str] = {
    "399055006": "spot-compression",
    "R-102D7": "spot-compression",
    "399163009": "magnification",
    "R-102D6": "magnification",
    "399209000": "implant-displaced",
    "R-102D5": "implant-displaced",
    "399161006": "other-modifier",  # cleavage
    "R-102D2": "other-modifier",
    "399011000": "other-modifier",  # axillary tail
    "R-102D1": "other-modifier",
    "399197002": "other-modifier",  # rolled: lateral, medial, inferior, superior
    "R-102D3": "other-modifier",
    "399226006": "other-modifier",
    "R-102D4": "other-modifier",
    "414493004": "other-modifier",
    "R-102CA": "other-modifier",
    "415670009": "other-modifier",
    "R-102C9": "other-modifier",
    "399110001": "other-modifier",  # tangential
    "R-102C2": "other-modifier",
    "442581004": "other-modifier",  # nipple in profile
    "R-40AB3": "other-modifier",
    "441752004": "other-modifier",  # anterior compression
    "P2-00161": "other-modifier",
    "442593008": "other-modifier",  # infra-mammary fold
    "R-40ABE": "other-modifier",
    "442580003": "other-modifier",  # axillary tissue
    "R-40AB2": "other-modifier",
}

#: Sides as codes: CID 244 (right, left) and the breasts of either side.
SIDES: Mapping[str, str] = {
    "7771000": "L",
    "G-A101": "L",
    "80248007": "L",
    "T-04030": "L",
    "24028007": "R",
    "G-A100": "R",
    "73056007": "R",
    "T-04020": "R",
}

#: The breast as an anatomic region (CID 4013): breast, both breasts, right, left.
BREASTS = frozenset(("76752008", "T-04000", "63762007", "T-04080", "73056007", "T-04020", "80248007", "T-04030"))
