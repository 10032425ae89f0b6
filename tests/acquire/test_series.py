"""Names and places of series: those of the official retriever, and nothing that leads anywhere else."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbia_server import image_bytes

from spicula.acquire import series
from spicula.errors import SpiculaError

#: As the archive describes the first full mammogram of CBIS-DDSM.
FACTS = {
    "Series UID": "1.3.6.1.4.1.9590.100.1.2.342386194811267636608694132590482924515",
    "Study UID": "1.3.6.1.4.1.9590.100.1.2.422112722213189649807611434612228974994",
    "Collection": "CBIS-DDSM",
    "Subject ID": "Mass-Training_P_00001_LEFT_CC",
    "Study Date": "07-20-2016",
    "Study ID": "DDSM",
    "Series Number": 1,
    "Series Description": "full mammogram images",
}


def test_the_place_is_the_one_that_users_of_the_retriever_know():
    assert series.place(FACTS) == (
        "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/07-20-2016-DDSM-NA-74994/1.000000-full mammogram images-24515"
    )


def test_what_is_missing_is_na():
    assert series.place({"Series UID": "1.2.3456789"}) == "NA/NA/NA-NA-NA-NA/NA-NA-56789"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd", "_._etc_passwd"),
        ("..", "NA"),
        ("a\x00b\nc", "a_b_c"),
        ("Müller: 50 %", "Muller_ 50 _"),
        ("C:\\temp", "C_temp"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        (" .hidden. ", "hidden"),
        ("~root", "_root"),
        (None, "NA"),
        (7, "7"),
    ],
)
def test_names_are_plain(text, name):
    assert series.safe_name(text) == name


def test_descriptions_are_cut():
    place = PurePosixPath(series.place(FACTS | {"Series Description": "x" * 500, "Study Description": "y" * 500}))
    assert place.parts[2] == f"07-20-2016-DDSM-{'y' * 54}-74994"
    assert place.parts[3] == f"1.000000-{'x' * 54}-24515"


@given(st.dictionaries(st.sampled_from(sorted(set(FACTS) - {"Series UID", "Study UID"})), st.text(max_size=300)))
def test_no_text_of_an_archive_leads_out_of_the_target(facts):
    place = PurePosixPath(series.place(FACTS | facts))
    assert len(place.parts) == 4
    for part in place.parts:
        assert part not in (".", "..")
        assert len(part) <= 64 + 64 + 54 + 5 + 3
        assert part == part.strip(" .")
        assert all(letter.isascii() and letter.isprintable() and letter not in '/\\:*?"<>|' for letter in part)


@pytest.mark.parametrize("uid", ["../x", "1.2/3", "", "1.2\n", "1" * 70])
def test_a_uid_that_is_none_is_refused(uid):
    with pytest.raises(SpiculaError, match="no UID"):
        series.place(FACTS | {"Series UID": uid})
    if uid:
        with pytest.raises(SpiculaError, match="no UID"):
            series.place(FACTS | {"Study UID": uid})


@pytest.mark.parametrize(
    ("given_date", "date"),
    [
        ("2016-07-20 00:00:00.0", "07-20-2016"),
        ("2016-07-20", "07-20-2016"),
        ("20160720", "07-20-2016"),
        ("07-20-2016", "07-20-2016"),
        (None, ""),
        ("soon", "soon"),
    ],
)
def test_dates_are_written_as_the_retriever_does(given_date, date):
    assert series.us_date(given_date) == date


def test_images_are_named_in_order_of_their_numbers_whatever_the_order_they_came_in(tmp_path):
    paths = []
    for image in (9, 0, 4, 10, 1, 2, 3, 5, 6, 7, 8):
        paths.append(tmp_path / f"{len(paths)}.dcm")
        paths[-1].write_bytes(image_bytes(0, image, 4, False))
    paths.append(tmp_path / "no-dicom")
    paths[-1].write_bytes(b"x")
    names = series.image_names(paths)
    by_name = {name: path.read_bytes() for path, name in names.items()}
    assert [by_name[f"1-{number:02d}.dcm"] for number in range(1, 12)] == [
        image_bytes(0, image, 4, False) for image in range(11)
    ]
    assert by_name["1-12.dcm"] == b"x"
    assert series.image_names(paths[:1]) == {paths[0]: "1-1.dcm"}
