"""Lists of series: the official manifest, plain lists, and what is wrong with others."""

import pytest

from spicula.acquire import manifest
from spicula.errors import UsageError

HEAD = "downloadServerUrl=https://x.org/a?b=c\nincludeAnnotation=true\nnoOfrRetry=4\nmanifestVersion=3.0\n"
LIST = "ListOfSeriesToDownload=\n"


def write(tmp_path, text):
    path = tmp_path / "list.tcia"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_official_manifest_lists_6775_series(test_data):
    (path,) = (test_data / "cbis-ddsm").glob("*.tcia")
    found = manifest.read(path)
    assert (len(found.series), found.retries) == (6775, 4)
    assert found.series[0] == "1.3.6.1.4.1.9590.100.1.2.294445047912407030012248838470114617726"


def test_reads_keys_and_series_once_each_and_in_order(tmp_path):
    text = HEAD.replace("4", "7", 1) + LIST + "1.2.30\n1.2.4\n\n# a note\n 1.2.30 \n1.2.5"
    assert manifest.read(write(tmp_path, text)) == manifest.Manifest(("1.2.30", "1.2.4", "1.2.5"), 7)


@pytest.mark.parametrize("text", ["1.2.3\n1.2.4\n", "\ufeff1.2.3\r\n\r\n1.2.4\r\n", "# mine\n1.2.3\n1.2.4"])
def test_reads_a_plain_list_of_uids(tmp_path, text):
    assert manifest.read(write(tmp_path, text)) == manifest.Manifest(("1.2.3", "1.2.4"), manifest.DEFAULT_RETRIES)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HEAD + LIST + "1.2.3\nnonsense\n", r"list\.tcia, line 7: 'nonsense' is no series instance UID"),
        (HEAD + LIST + "../../etc\n", r"line 6: '\.\./\.\./etc' is no series"),
        (HEAD + LIST + "1.2.3=4\n", r"line 6: '1\.2\.3=4' is no series"),
        (HEAD + LIST + "1." + "2" * 64 + "\n", "line 6: .* at most 64 characters"),
        (HEAD + "1.2.3\n" + LIST, "line 5: '1.2.3' is no key=value, and ListOfSeriesToDownload= has not come yet"),
        (HEAD + "1.2.3\n", "line 5: '1.2.3' is no key=value"),
        (HEAD, "is no manifest: there is no line ListOfSeriesToDownload="),
        (HEAD + LIST, "lists no series"),
        ("", "lists no series"),
        (HEAD.replace("noOfrRetry=4", "noOfrRetry=many") + LIST + "1.2.3\n", "line 3: noOfrRetry='many' is no number"),
        (HEAD.replace("noOfrRetry=4", "noOfrRetry=-1") + LIST + "1.2.3\n", "line 3: noOfrRetry='-1' is no number"),
        ("ListOfSeriesToDownload=1.2.3\n", "line 1: the series of ListOfSeriesToDownload= stand on the lines after it"),
        ("series\n1.2.3\n", "line 1: 'series' is no series instance UID"),
        (b"\xff\xfe1\x00", "it is no text file"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_line(tmp_path, text, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        manifest.read(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*gone\.tcia: No such file"):
        manifest.read(tmp_path / "gone.tcia")


def test_a_huge_file_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_MAX_BYTES", 100)
    with pytest.raises(UsageError, match="more than 100 bytes"):
        manifest.read(write(tmp_path, "1.2.3\n" * 100))
