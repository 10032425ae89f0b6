"""Headers of mammograms: sides, views and flags from every place where vendors write them; odd values."""

from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from spicula import headers, index
from spicula.catalog.dicom_header import equipment, read_many, read_view
from spicula.phantoms import make_exams

MG = "1.2.840.10008.5.1.4.1.1.1.2"
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"


def code(value, **more):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = value, "SRT" if "-" in value else "SCT"
    for name, content in more.items():
        setattr(item, name, content)
    return item


def header(**values):
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def seen(**values):
    view = read_view(header(**values))
    return view.laterality, view.view, view.flags


def test_the_plain_tags():
    assert seen(ImageLaterality="R", ViewPosition="MLO") == ("R", "MLO", [])
    assert seen() == (None, None, [])


@pytest.mark.parametrize(("value", "label"), [("R-10242", "CC"), ("399162004", "CC"), ("R-1024A", "XCCL")])
def test_coded_views_of_both_codings(value, label):
    assert seen(ImageLaterality="L", ViewCodeSequence=[code(value)]) == ("L", label, [])


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        ("R-102D7", "spot-compression"),
        ("399163009", "magnification"),
        ("R-102D5", "implant-displaced"),
        ("R-102D2", "other-modifier"),
        ("399011000", "other-modifier"),
        ("R-99999", "other-modifier"),  # a modifier of a later edition
    ],
)
def test_coded_modifiers_inside_the_view_or_beside_it(value, flag):
    inside = [code("R-10226", ViewModifierCodeSequence=[code(value)])]
    assert seen(ViewCodeSequence=inside) == (None, "MLO", [flag])
    assert seen(ViewCodeSequence=[code("R-10226")], ViewModifierCodeSequence=[code(value)]) == (None, "MLO", [flag])


def test_a_specimen_is_no_view():
    assert seen(ViewCodeSequence=[code("G-8310")]) == (None, None, ["specimen"])


def test_functional_groups_of_enhanced_images():
    anatomy = header(FrameLaterality="L")
    measures = header(PixelSpacing=[0.1, 0.1])
    shared = header(
        FrameAnatomySequence=[anatomy], PixelMeasuresSequence=[measures], ViewCodeSequence=[code("399162004")]
    )
    dataset = header(
        SOPClassUID=TOMOSYNTHESIS,
        NumberOfFrames=50,
        SharedFunctionalGroupsSequence=[shared],
    )
    view = read_view(dataset)
    assert (view.laterality, view.view, view.flags) == ("L", "CC", ["tomosynthesis-slice"])
    assert equipment(dataset)["pixel_spacing_mm"] == pytest.approx(0.1)


def test_older_tags_and_descriptions_come_last():
    assert seen(Laterality="R", ViewPosition="CC")[:2] == ("R", "CC")
    assert seen(SeriesDescription="MLO links") == ("L", "MLO", [])
    assert seen(ProtocolName="RCC ID") == ("R", "CC", ["implant-displaced"])
    assert seen(AcquisitionDeviceProcessingDescription="L-CC Spot") == ("L", "CC", ["spot-compression"])
    assert seen(AnatomicRegionSequence=[code("T-04000", AnatomicRegionModifierSequence=[code("G-A100")])])[0] == "R"
    assert seen(AnatomicRegionSequence=[code("80248007")])[0] == "L"
    assert seen(ViewPosition="RMLO") == ("R", "MLO", [])


def test_a_studys_description_counts_only_for_side_and_view_together():
    assert seen(StudyDescription="Left mammogram, spot views") == (None, None, [])
    assert seen(StudyDescription="L MLO spot") == ("L", "MLO", [])
    assert seen(StudyDescription="SCREENING WITH TOMO", SeriesDescription="R CC") == ("R", "CC", [])


def test_a_description_of_all_images_flags_none():
    assert seen(SeriesDescription="SCREENING WITH IMPLANT DISPLACED VIEWS", ViewPosition="CC")[2] == []
    assert seen(SeriesDescription="LEFT SPOT MAG")[2] == ["spot-compression", "magnification"]
    assert seen(SeriesDescription="SPECIMEN RADIOGRAPH")[2] == ["specimen"]


def test_contradictions_are_noted_and_the_more_binding_tag_is_taken():
    view = read_view(header(ImageLaterality="L", ViewPosition="CC", SeriesDescription="RMLO for Mrs Canary"))
    assert (view.laterality, view.view) == ("L", "CC")
    assert view.notes == [
        "the side is L by ImageLaterality, but R by SeriesDescription",
        "the view is CC by ViewPosition, but MLO by SeriesDescription",
    ]
    assert read_view(header(ViewPosition="CC", ViewCodeSequence=[code("R-10226")])).notes
    both = read_view(header(ImageLaterality="B", SeriesDescription="R CC"))
    assert both.laterality is None
    assert both.notes
    assert read_view(header(ImageLaterality="L", Laterality="L", SeriesDescription="L CC")).notes == []


def test_a_code_that_says_how_cc_is_exaggerated_refines_it():
    view = read_view(header(ViewPosition="CC", ViewCodeSequence=[code("R-1024B")]))
    assert (view.view, view.notes) == ("XCCM", [])


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, ["for-processing"]),
        ({"SOPClassUID": MG + ".1"}, ["for-processing"]),
        ({"PresentationIntentType": "FOR PRESENTATION", "SOPClassUID": MG}, []),
        ({"BreastImplantPresent": "YES"}, ["implant"]),
        ({"BreastImplantPresent": "NO", "PartialView": "NO", "BurnedInAnnotation": "NO"}, []),
        ({"PartialView": "YES"}, ["partial-view"]),
        ({"BurnedInAnnotation": "YES"}, ["burned-in-annotation"]),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, ["magnification"]),
        ({"EstimatedRadiographicMagnificationFactor": "1.07"}, []),
        ({"PaddleDescription": "10CM SPOT"}, ["spot-compression"]),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ"]}, ["tomosynthesis-slice"]),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]}, ["tomosynthesis-slice"]),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}, ["synthetic-2d"]),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "MAX_IP"]}, ["synthetic-2d"]),
        ({"SOPClassUID": TOMOSYNTHESIS, "ImageType": ["DERIVED", "PRIMARY", "", "GENERATED_2D"]}, ["synthetic-2d"]),
        ({"SOPClassUID": TOMOSYNTHESIS, "NumberOfFrames": 60}, ["tomosynthesis-slice"]),
        ({"SOPClassUID": MG, "NumberOfFrames": 30}, ["tomosynthesis-slice"]),
        ({"VolumetricProperties": "VOLUME", "ImageType": ["DERIVED", "PRIMARY"]}, ["tomosynthesis-slice"]),
        ({"SeriesDescription": "R CC C-View"}, ["synthetic-2d"]),
        ({"ViewPosition": "MLO MAG"}, ["magnification"]),
        ({"ProtocolName": "R CC tomo"}, []),  # a protocol makes the plain view as well
        ({"ImageType": ["DERIVED", "PRIMARY", "", "SUBTRACTION"]}, ["other-modifier"]),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "SCOUT_MINUS"]}, ["other-modifier"]),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, []),
    ],
)
def test_what_sets_an_image_apart(values, flags):
    assert seen(**values)[2] == flags


def test_overlay_planes():
    dataset = Dataset()
    dataset.add_new(0x60020010, "US", 10)
    dataset.add_new(0x60023000, "OW", b"\0\0")
    assert read_view(dataset).flags == ["overlay"]


def test_for_processing_by_class_against_the_intent_is_noted():
    view = read_view(header(SOPClassUID=MG + ".1", PresentationIntentType="FOR PRESENTATION"))
    assert view.flags == ["for-processing"]
    assert len(view.notes) == 1


def test_equipment():
    assert equipment(
        header(
            Modality="MG",
            PhotometricInterpretation="MONOCHROME1",
            ImagerPixelSpacing=[0.07, 0.08],
            PixelSpacing=[0.05, 0.05],
            Manufacturer="HOLOGIC, Inc. ",
            ManufacturerModelName="Selenia\tDimensions",
            PatientAge="061Y",
        )
    ) == {
        "modality": "MG",
        "photometric": "MONOCHROME1",
        "pixel_spacing_mm": 0.07,
        "manufacturer": "HOLOGIC, Inc.",
        "model": "Selenia Dimensions",
        "age": 61.0,
    }


@pytest.mark.parametrize(
    ("value", "years"), [("018M", 1), ("104W", 2), ("800D", 2), ("999Y", None), ("61", None), ("0x1Y", None)]
)
def test_ages(value, years):
    dataset = Dataset()
    with pytest.warns(UserWarning) if value in ("61", "0x1Y") else _nothing():
        dataset.PatientAge = value
    assert equipment(dataset)["age"] == years


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("spacing", ["0", "-1", "70", "nan", "1e-50"])
def test_impossible_spacings_are_nothing(spacing):
    dataset = Dataset()
    element = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("ImagerPixelSpacing"), "DS", 4, spacing.encode(), 0, False, True, True
    )
    dataset[element.tag] = element
    assert equipment(dataset)["pixel_spacing_mm"] is None


@pytest.mark.parametrize(
    ("keyword", "vr", "raw"),
    [
        ("ImagerPixelSpacing", "DS", b"a\\b "),
        ("EstimatedRadiographicMagnificationFactor", "DS", b"much"),
        ("NumberOfFrames", "IS", b"many"),
        ("ImageLaterality", "UN", b"\xff\xfe"),
        ("ViewCodeSequence", "SQ", b"\x01\x02\x03\x04"),
        ("ViewCodeSequence", "LO", b"CC"),
        ("ViewPosition", "OB", b"\0\0"),
        ("ImageType", "US", b"\x01\x00\x02\x00"),
        ("Manufacturer", "LO", b"\xff\xff\x1b$B"),
        ("PatientAge", "AS", b"0000"),
    ],
)
def test_odd_values_never_raise_or_warn(keyword, vr, raw):
    dataset = Dataset()
    tag = pydicom.tag.Tag(keyword)
    dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True, True)
    assert read_view(dataset).laterality is None
    assert set(equipment(dataset)) == {"modality", "photometric", "pixel_spacing_mm", "manufacturer", "model", "age"}


KEYWORDS = [
    "SOPClassUID",
    "ImageType",
    "Modality",
    "PresentationIntentType",
    "SeriesDescription",
    "ProtocolName",
    "StudyDescription",
    "AcquisitionDeviceProcessingDescription",
    "ImageLaterality",
    "Laterality",
    "ViewPosition",
    "ViewCodeSequence",
    "ViewModifierCodeSequence",
    "AnatomicRegionSequence",
    "SharedFunctionalGroupsSequence",
    "BreastImplantPresent",
    "PartialView",
    "BurnedInAnnotation",
    "EstimatedRadiographicMagnificationFactor",
    "PaddleDescription",
    "NumberOfFrames",
    "ImagerPixelSpacing",
    "PixelSpacing",
    "NominalScannedPixelSpacing",
    "Manufacturer",
    "PatientAge",
    "PhotometricInterpretation",
]
REPRESENTATIONS = [
    "AE",
    "AS",
    "AT",
    "CS",
    "DA",
    "DS",
    "DT",
    "FD",
    "FL",
    "IS",
    "LO",
    "LT",
    "OB",
    "OW",
    "PN",
    "SH",
    "SL",
    "SQ",
    "SS",
    "ST",
    "TM",
    "UC",
    "UI",
    "UL",
    "UN",
    "US",
    "UT",
]


@given(
    st.lists(
        st.tuples(st.sampled_from(KEYWORDS), st.sampled_from(REPRESENTATIONS), st.binary(max_size=40)), max_size=8
    ),
    st.booleans(),
)
def test_any_elements_are_read_without_an_error_or_a_warning(elements, is_implicit):
    dataset = Dataset()
    for keyword, vr, raw in elements:
        tag = pydicom.tag.Tag(keyword)
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, is_implicit, True, True)
    view, facts = read_view(dataset), equipment(dataset)
    row = {"dataset": "x", "image_id": "x", "path": "x", "laterality": view.laterality, "view": view.view}
    index.from_rows([{**row, "flags": view.flags, **facts}], Path())  # what the Index admits
    assert all("\n" not in note for note in view.notes)


def test_empty_sequences_say_nothing():
    assert seen(ViewCodeSequence=Sequence([]), ViewModifierCodeSequence=[Dataset()]) == (None, None, [])


def test_phantoms(tmp_path):
    make_exams(tmp_path, 1, size=(128, 128), jobs=1)
    found = set()
    for path in tmp_path.rglob("*.dcm"):
        view = read_view(headers.read_dicom(path))
        assert view.flags == []
        assert view.notes == []
        found.add((view.laterality, view.view))
    assert found == {("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")}


def test_many_headers_come_in_order_and_bad_files_with_their_reason(tmp_path):
    make_exams(tmp_path, 1, size=(128, 128), jobs=1)
    (tmp_path / "notes").write_text("nothing")
    (tmp_path / "empty").touch()
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.dcm"))] * 20
    paths = ["notes", *names, "empty", "missing"]
    found = list(read_many(tmp_path, paths))
    assert [path for path, _ in found] == paths
    reasons = {path: one for path, one in found if isinstance(one, str)}
    assert set(reasons) == {"notes", "empty", "missing"}
    assert reasons["notes"] == "not a DICOM file"
    assert all(one.Modality == "MG" for _, one in found if not isinstance(one, str))


def test_the_real_film(test_data):
    dataset = headers.read_dicom(test_data / "dicom" / "MG1_J2KI")
    view = read_view(dataset)
    assert (view.laterality, view.view, view.flags, view.notes) == ("L", "MLO", [], [])
    assert equipment(dataset)["modality"] == "RG"
    assert equipment(dataset)["age"] == 75
