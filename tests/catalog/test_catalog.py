"""The registry, and what every dataset has in common."""

from pathlib import Path

import pytest

from spicula import catalog, files, headers
from spicula.catalog import build
from spicula.errors import RejectedImageError, UsageError

DOCS = Path(__file__).parents[2] / "docs" / "datasets"


def test_every_dataset_says_where_it_comes_from_and_is_documented():
    assert list(catalog.DATASETS) == [
        *("mini-mias", "breakhis", "idc-patches", "cbis-ddsm", "vindr-mammo", "inbreast", "cmmd"),
        *("dicom", "exam-folders", "folder", "phantom"),
    ]
    for name, dataset in catalog.DATASETS.items():
        assert dataset.name == name
        assert dataset.title and dataset.terms and dataset.layout
        assert len(set(dataset.classes)) == 2
        assert all(option.help.endswith(".") for option in dataset.options.values())
        if name not in ("dicom", "exam-folders", "folder", "phantom"):
            assert dataset.source.startswith("http")
            assert dataset.citation
        if name in ("mini-mias", "breakhis", "idc-patches", "vindr-mammo", "inbreast"):
            assert dataset.archives
    for name in catalog.DATASETS:
        text = (DOCS / f"{name}.md").read_text()
        parts = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
        assert parts == [
            "Source",
            "Terms",
            "Citation",
            "Layout",
            "Options",
            "Columns filled",
            "Traps",
            "Expected counts",
        ]
        dataset = catalog.get(name)
        assert dataset.source in text
        assert all(f"`{option}`" in text for option in dataset.options)


def test_an_unknown_dataset_lists_those_there_are():
    with pytest.raises(
        UsageError, match=r"no dataset 'breakhiss': there are mini-mias, breakhis, .*did you mean breakhis"
    ):
        catalog.get("breakhiss")
    with pytest.raises(UsageError, match="no dataset 'x': there are"):
        catalog.index_dataset("x", Path(), Path())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dicom", {"labels": 3}, "dicom: the option labels is 3, not a path"),
        ("dicom", {"columns": 3}, "dicom: columns is 3, not a table of names"),
        ("dicom", {"columns": ["label"]}, r"dicom: columns is \['label'\], not a table of names"),
        ("dicom", {"columns": {"label": ["a"]}}, "dicom: columns is .*, not a table of names"),
        ("folder", {"columns": "label"}, "folder: columns is 'label', not a table of names"),
        ("folder", {"positive": 3}, "folder: positive is 3, not a label"),
        ("folder", {"positive": ["a", 3]}, r"folder: positive is \['a', 3\], not a label"),
        ("folder", {"patient_pattern": 3}, "folder: patient_pattern 3 is not a regular expression"),
        ("exam-folders", {"list": ["a"]}, r"exam-folders: the option list is \['a'\], not a path"),
        ("cbis-ddsm", {"tables": True}, "cbis-ddsm: the option tables is True, not a path"),
    ],
)
def test_options_of_the_wrong_type_are_usage_errors(tmp_path, make_image, name, options, message):
    make_image(tmp_path / "data" / "a" / "L_CC.png")

    with pytest.raises(UsageError, match=message):
        catalog.index_dataset(name, tmp_path / "data", tmp_path, options)


def test_a_missing_folder_and_what_is_no_archive_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match=r"no folder .*absent; expected BreaKHis_v1.tar.gz"):
        catalog.index_dataset("breakhis", tmp_path / "absent", tmp_path)
    (tmp_path / "text").write_text("text")
    with pytest.raises(UsageError, match=r"is neither a folder nor a zip, tar or tar.gz file"):
        catalog.index_dataset("breakhis", tmp_path / "text", tmp_path)


def test_several_archives_are_ambiguous(tmp_path):
    for name in ("BreaKHis_v1.tar.gz", "BreaKHis_v1.zip"):
        (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(UsageError, match=r"holds several archives: BreaKHis_v1.tar.gz, BreaKHis_v1.zip"):
        catalog.index_dataset("breakhis", tmp_path, tmp_path)


def test_when_all_is_rejected_the_error_quotes_the_first_reason(tmp_path):
    (tmp_path / "set" / "benign").mkdir(parents=True)
    (tmp_path / "set" / "benign" / "a.png").write_text("text")
    with pytest.raises(UsageError, match=r"1 rejected, the first benign/a.png: not an image"):
        catalog.index_dataset("folder", tmp_path / "set", tmp_path)


def test_more_files_than_a_chunk_are_described_in_order(tmp_path, make_image):
    for number in range(150):
        make_image(tmp_path / "set" / "benign" / f"{number:03d}.png", size=(1 + number % 50, 3))
    bad = {7, 64, 149}
    for number in bad:
        (tmp_path / "set" / "benign" / f"{number:03d}.png").write_bytes(b"broken")
    reading = catalog.index_dataset("folder", tmp_path / "set", tmp_path)
    rows = reading.index.to_pylist()
    assert [row["width"] for row in rows] == [1 + number % 50 for number in range(150) if number not in bad]
    assert {Path(row["path"]).stem for row in reading.rejected.to_pylist()} == {"007", "064", "149"}
    for row in rows[::40]:
        assert row["sha256"] == files.sha256_file(tmp_path / "set" / row["path"])


def test_a_file_that_goes_away_while_reading_is_rejected(tmp_path, make_image, monkeypatch):
    for name in ("a", "b"):
        make_image(tmp_path / "set" / "benign" / f"{name}.png")

    def vanishing(path):
        if path.name == "a.png":
            raise RejectedImageError("cannot be opened: gone")
        return headers.read_header(path)

    monkeypatch.setattr(build, "read_header", vanishing)
    reading = catalog.index_dataset("folder", tmp_path / "set", tmp_path)
    assert reading.rejected.to_pylist() == [{"path": "benign/a.png", "reason": "cannot be opened: gone"}]
    assert reading.index.num_rows == 1
