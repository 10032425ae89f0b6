"""Labels and descriptions: what they say, and what they must not be taken to say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr import _cid_dict, _concepts_dict
from pydicom.sr._snomed_dict import mapping

from spicula import index
from spicula.catalog import view_codes
from spicula.catalog.view_words import read_description, read_label

SPOT, MAG, ID, OTHER = "spot-compression", "magnification", "implant-displaced", "other-modifier"


@pytest.mark.parametrize(
    ("label", "side", "view", "flags"),
    [
        ("CC", None, "CC", set()),
        ("RMLO", "R", "MLO", set()),
        ("L-CC", "L", "CC", set()),
        ("lm", None, "LM", set()),  # latero-medial, not left anything
        ("LML", "L", "ML", set()),
        ("LMLO", "L", "MLO", set()),
        ("LLMO", "L", "LMO", set()),
        ("LMO", None, "LMO", set()),
        ("MML", None, "ML", {MAG}),
        ("MLM", None, "LM", {MAG}),
        ("SMLO", None, "MLO", {SPOT}),
        ("RSMCC", "R", "CC", {SPOT, MAG}),
        ("RXCCL", "R", "XCCL", set()),
        ("XCC", None, "XCC", set()),
        ("LCCID", "L", "CC", {ID}),
        ("CCRL", None, "CC", {OTHER}),
        ("RMCCIDRM", "R", "CC", {MAG, ID, OTHER}),
        ("AT", None, "MLO", {OTHER}),
        ("LCV", "L", "CC", {OTHER}),
        ("TAN", None, None, {OTHER}),
        ("SIO", None, "SIO", set()),
        ("L CC 2", "L", "CC", set()),
    ],
)
def test_labels_of_the_acr_manual(label, side, view, flags):
    words = read_label(label)
    assert (words.laterality, words.view, words.flags) == (side, view, flags)


@pytest.mark.parametrize("text", ["", "LAT", "AP", "LATERAL", "R", "ID", "CCM", "MAMMO", "PA\n", "CC" * 20, "Ω"])
def test_what_is_no_label(text):
    assert read_label(text) is None


@pytest.mark.parametrize(
    ("text", "side", "view", "flags"),
    [
        ("R CC", "R", "CC", set()),
        ("LMLO", "L", "MLO", set()),
        ("MLO links", "L", "MLO", set()),
        ("Mammo MLO re", "R", "MLO", set()),
        ("cc_rechts", "R", "CC", set()),
        ("L-CC Spot", "L", "CC", {SPOT}),
        ("L Spot CC", "L", "CC", {SPOT}),
        ("RCC ID", "R", "CC", {ID}),
        ("R MLO Implant Displaced", "R", "MLO", {ID}),
        ("LEFT CC EKLUND", "L", "CC", {ID}),
        ("M CC L", "L", "CC", {MAG}),
        ("Vergrößerung CC rechts", "R", "CC", {MAG}),
        ("agrandissement cc gauche", "L", "CC", {MAG}),
        ("Cranio-caudal gauche", "L", "CC", set()),
        ("Kraniokaudal rechts", "R", "CC", set()),
        ("medio-laterale oblique droite", "R", "MLO", set()),
        ("Medio-lateral schräg links", "L", "MLO", set()),
        ("craneocaudal derecha", "R", "CC", set()),
        ("R CC C-View", "R", "CC", {"synthetic-2d"}),
        ("L MLO S-View", "L", "MLO", {"synthetic-2d"}),
        ("R CC V-Preview", "R", "CC", {"synthetic-2d"}),
        ("L CC Tomosynthesis Reconstruction", "L", "CC", {"tomosynthesis-slice"}),
        ("L CC Tomosynthesis, generated 2D", "L", "CC", {"synthetic-2d"}),
        ("R ML specimen", "R", "ML", {"specimen"}),
        ("BILATERAL SCREENING: L MLO", "L", "MLO", set()),
        ("Mammographie beidseits, CC links", "L", "CC", set()),
        # what must not be understood
        ("", None, None, set()),
        ("MAMMOGRAM BILATERAL", None, None, set()),
        ("Bilateral left right", None, None, set()),
        ("Mammographie beidseits, linke Brust", None, None, set()),
        ("R CC, L CC", None, "CC", set()),
        ("R CC R MLO", "R", None, set()),
        ("CC R MLO L", None, None, set()),
        ("cranio-caudal exaggerated laterally, left", "L", "XCCL", set()),
        ("L exaggerated CC", "L", "XCC", set()),
        ("mass at 3 o'clock", None, None, set()),
        ("mass seen at R CC", "R", "CC", set()),
        ("contrast 100 ml right", "R", None, set()),
        ("ISO 400", None, None, set()),
        ("L LAT", None, None, set()),
        ("ROUTINE SCREENING", None, None, set()),
        ("RE-SCREENING", None, None, set()),
        ("SYNTHETIC R MLO", "R", "MLO", set()),  # a phantom, not computed from tomosynthesis
        ("PATIENT ID", None, None, set()),
        ("copyright", None, None, set()),
    ],
)
def test_descriptions(text, side, view, flags):
    words = read_description(text)
    assert (words.laterality, words.view, set(words.flags)) == (side, view, flags)


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(text):
    words = read_description(text)
    assert words.laterality in ("L", "R", None)
    assert words.view is None or words.view in view_codes.VIEWS.values()
    assert words.flags <= set(index.FLAGS)
    label = read_label(text)
    assert label is None or label.view is None or label.view in view_codes.VIEWS.values()


@given(
    st.sampled_from([("R", "R"), ("L", "L"), ("right", "R"), ("LINKS", "L"), ("Droite", "R")]),
    st.sampled_from(["CC", "MLO", "XCCL", "cranio-caudal"]),
    st.sampled_from([("", set()), ("spot", {SPOT}), ("MAG", {MAG})]),
    st.sampled_from([" ", "-", "_", " / ", ", "]),
    st.permutations([0, 1]),
)
def test_side_and_view_are_found_in_either_order_whatever_stands_between_them(side, view, modifier, gap, order):
    parts = [side[0], view]
    words = read_description(gap.join([parts[order[0]], parts[order[1]], modifier[0]]))
    wanted = "CC" if view == "cranio-caudal" else view
    assert (words.laterality, words.view, set(words.flags)) == (side[1], wanted, modifier[1])


def codes_of(cid):
    """Every (SNOMED CT, SNOMED RT) pair of a context group, as pydicom has it from the standard."""
    for scheme, names in _cid_dict.cid_concepts[cid].items():
        for name in names:
            for code, (_, groups) in _concepts_dict.concepts[scheme][name].items():
                if cid in groups:
                    yield code, [old for old, new in mapping["SRT"].items() if new == code]


@pytest.mark.parametrize(("cid", "table", "count"), [(4014, view_codes.VIEWS, 11), (4015, view_codes.MODIFIERS, 14)])
def test_the_tables_are_those_of_the_standard_in_both_codings(cid, table, count):
    pairs = list(codes_of(cid))
    assert len(pairs) == count
    for code, retired in pairs:
        assert code in table
        assert retired
        assert {table[old] for old in retired} == {table[code]}
    retired_since = {"Y-X1770", "Y-X1771", "R-102CF"}
    assert set(table) - retired_since == {code for pair in pairs for code in (pair[0], *pair[1])}
