"""The codes that results are told in: DICOM's own (PS3.16) and SNOMED CT and UCUM as PS3.16 uses them; none of ours."""

from collections.abc import Mapping

from pydicom.sr.coding import Code

#: What was looked for. CID 6063, Interventional Procedure Result.
FINDINGS: Mapping[str, Code] = {
    "malignant": Code("21594007", "SCT", "Malignant"),
    "benign": Code("30807003", "SCT", "Benign"),
}
#: What the probability of each is called: those of Mammography CAD (TID 4005 and 4006), in percent, 0 to 100.
PROBABILITIES: Mapping[str, Code] = {
    "malignant": Code("111047", "DCM", "Probability of cancer"),
    "benign": Code("111012", "DCM", "Certainty of Finding"),
}
PERCENT = Code("%", "UCUM", "Percent")

#: Where. CID 4031, Common Anatomic Region.
BREAST = Code("76752008", "SCT", "Breast")
#: Which. CID 244, Laterality.
SIDES: Mapping[str, Code] = {"L": Code("7771000", "SCT", "Left"), "R": Code("24028007", "SCT", "Right")}
#: CID 4014, View for Mammography.
VIEWS: Mapping[str, Code] = {
    "CC": Code("399162004", "SCT", "cranio-caudal"),
    "MLO": Code("399368009", "SCT", "medio-lateral oblique"),
}

#: Of the report. CID 7021, Measurement Report Document Title; CID 6058, Procedure Modifiers for Breast.
TITLE = Code("126000", "DCM", "Imaging Measurement Report")
PROCEDURE = Code("71651007", "SCT", "Mammography")
#: Its text, and its list of images (TID 1600, TID 1602).
COMMENT = Code("121106", "DCM", "Comment")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
SOURCE = Code("260753009", "SCT", "Source")
IMAGE_LATERALITY = Code("111027", "DCM", "Image Laterality")
IMAGE_VIEW = Code("111031", "DCM", "Image View")
#: CID 270, Observer Type.
DEVICE = Code("121007", "DCM", "Device")

#: CID 7162, Surface Processing Algorithm Family, which PS3.3 names for algorithms in general.
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")

#: What a segment shows; one of FINDINGS modifies it. CID 7150, Segmentation Property Category; CID 7159, Lesion
#: Segmentation Type.
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LESION = Code("52988006", "SCT", "Lesion")

#: Why an image is referred to. CID 7202, Source Image Purpose of Reference.
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
