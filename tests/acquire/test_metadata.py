"""metadata.csv: the columns of the official retriever, every series that is there, in one line each."""

import csv

from nbia_server import image_bytes, series_uid

from spicula.acquire import metadata, records

OFFICIAL = (
    "Series UID,Collection,3rd Party Analysis,Data Description URI,Subject ID,Study UID,Study Description,Study Date,"
    "Series Description,Manufacturer,Modality,SOP Class Name,SOP Class UID,Number of Images,File Size,File Location,"
    "Download Timestamp"
)


def whole(to, number, place):
    folder = to / ".spicula" / "partial" / "folder"
    folder.mkdir(parents=True)
    (folder / "1-1.dcm").write_bytes(image_bytes(number, 0, 32, False))
    record = records.describe(folder, key=series_uid(number), place=place, checks="", source="upstream")
    records.publish(to, folder, record)
    return record


def read(to):
    with (to / "metadata.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_columns_are_those_of_the_retriever(tmp_path):
    metadata.update(tmp_path, [])
    assert (tmp_path / "metadata.csv").read_text().startswith(f"{OFFICIAL},License Name,License URL\n")


def test_a_row_says_what_the_archive_and_the_files_say(tmp_path):
    record = whole(tmp_path, 0, "C/P/study/series")
    facts = {
        "Collection": "C",
        "Subject ID": "P",
        "Modality": "MG",
        "Series Description": "two\nlines\x00, and a comma",
    }
    metadata.update(tmp_path, [(facts | {"File Size": 99, "Number of Images": 77}, record)])
    (row,) = read(tmp_path)
    assert row["Series UID"] == series_uid(0)
    assert (row["SOP Class UID"], row["SOP Class Name"]) == (
        "1.2.840.10008.5.1.4.1.1.1.2",
        "Digital Mammography X-Ray Image Storage - For Presentation",
    )
    assert (row["Number of Images"], row["File Size"], row["File Location"]) == ("1", "2.7 KB", "./C/P/study/series")
    assert row["Series Description"] == "two lines , and a comma"
    assert row["Manufacturer"] == ""
    assert (tmp_path / row["File Location"] / "1-1.dcm").exists()


def test_series_of_former_downloads_stay_and_their_rows_do_not_change(tmp_path):
    first = whole(tmp_path, 0, "C/P/b")
    metadata.update(tmp_path, [({"Collection": "C"}, first)])
    before = (tmp_path / "metadata.csv").read_text()
    metadata.update(tmp_path, [({"Collection": "C"}, first)])
    assert (tmp_path / "metadata.csv").read_text() == before
    metadata.update(tmp_path, [({"Collection": "C"}, whole(tmp_path, 1, "C/P/a"))])
    assert [row["File Location"] for row in read(tmp_path)] == ["./C/P/a", "./C/P/b"]
    assert before.splitlines()[1] in (tmp_path / "metadata.csv").read_text()


def test_a_table_that_cannot_be_read_is_written_anew(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"\xff\xfe\x00")
    metadata.update(tmp_path, [({}, whole(tmp_path, 0, "C/P/b"))])
    assert len(read(tmp_path)) == 1
