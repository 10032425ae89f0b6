"""Tables of the archives: found, checked for their columns, read line by line, and never trusted."""

import gzip
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.catalog import official_tables
from spicula.catalog.official_tables import collect, converted, find, matching, one_of, read_csv
from spicula.errors import UsageError


def test_the_table_nearest_to_the_root_is_found_whatever_its_case(tmp_path):
    paths = ["a/b/List.csv", "b/list.CSV", "a/LIST.csv", "list.txt"]
    assert find(tmp_path, paths, "list.csv") == tmp_path / "a/LIST.csv"
    assert find(tmp_path, paths, "other.csv") is None
    assert find(tmp_path, paths, "list.csv", tmp_path / "given.csv") == tmp_path / "given.csv"


def test_values_are_stripped_blank_lines_passed_over_and_short_and_long_lines_reported(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes('\ufeff a ;b\r\n1; x \r\n\r\n;\r\n2\r\n3;y;z\r\n4;"two\r\nlines"\r\n'.encode())
    lines = list(read_csv(table, ("a", "b"), ";"))
    assert [(line.number, line.values, line.problem) for line in lines] == [
        (2, {"a": "1", "b": "x"}, None),
        (5, {"a": "2", "b": ""}, "has fewer values than the table has columns"),
        (6, {"a": "3", "b": "y"}, "has more values than the table has columns"),
        (8, {"a": "4", "b": "two\r\nlines"}, None),
    ]


def test_a_table_that_is_not_utf_8_is_read_as_latin_1(tmp_path):
    (tmp_path / "t.csv").write_bytes("a\nlesão\n".encode("latin-1"))
    assert [line.values for line in read_csv(tmp_path / "t.csv", ("a",))] == [{"a": "lesão"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,c\n1,2\n", r"has no column b; it has a, c\. Is it the archive's own\?"),
        (b"", "has no column a, b; it has none"),
        (b'a,b\n1,"2"x\n', "is not CSV: line 2"),
        (b'a,b\n1,"2', "is not CSV: line 2"),
        (b'"a,b', "is not CSV"),
        ("a,b\n1,2\n".encode("utf-16"), "is not CSV in UTF-8; it is compressed, a spreadsheet, or in UTF-16"),
        (gzip.compress(b"a,b\n1,2\n"), "is not CSV in UTF-8"),
        (b"a,\x1b[31mc\n1,2\n", r"has no column b; it has a, \?\[31mc\. Is it"),
    ],
)
def test_another_table_is_a_usage_error(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        list(read_csv(tmp_path / "t.csv", ("a", "b")))


def test_a_table_too_large_or_that_is_not_there_is_a_usage_error(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"cannot read the table .*No such file"):
        list(read_csv(tmp_path / "t.csv", ("a",)))
    (tmp_path / "t.csv").write_text("a\n1\n")
    monkeypatch.setattr(official_tables, "MAX_BYTES", 3)
    with pytest.raises(UsageError, match="has 4 bytes; at most 3 are read"):
        list(read_csv(tmp_path / "t.csv", ("a",)))


def parse(line):
    return one_of(line, "key", ("x", "y", "z")), converted(line, "value", int)


def test_lines_that_contradict_each_other_do_not_count_and_each_is_reported(tmp_path):
    (tmp_path / "t.csv").write_text("key,value\nx,1\ny,2\nx,3\ny,2\nq,1\nz,?\nz,4\nx,1\n")
    entries, rejected = collect("t.csv", read_csv(tmp_path / "t.csv", ("key", "value")), parse)
    assert entries == {"y": 2, "z": 4}
    assert [row["path"] for row in rejected] == ["t.csv"] * 5
    assert [row["reason"].partition(",")[0] for row in rejected] == [
        "line 4: says something else than an earlier line of the same; neither counts",
        "line 5: repeats an earlier line",
        "line 6: key is 'q'",
        "line 7: value is '?'",
        "line 9: repeats an earlier line",
    ]


def test_a_long_value_is_quoted_only_in_part(tmp_path):
    (tmp_path / "t.csv").write_text(f"key\n{'w' * 5000}\n")
    (line,) = read_csv(tmp_path / "t.csv", ("key",))
    with pytest.raises(ValueError, match=r"key is 'w{60}', not a number") as error:
        matching(line, "key", re.compile(r"\d+"), "a number")
    assert "\n" not in str(error.value)


@given(st.binary(max_size=300))
def test_any_bytes_give_lines_or_a_usage_error(tmp_path_factory, content):
    table = tmp_path_factory.mktemp("bytes") / "t.csv"
    table.write_bytes(b"a,b\n" + content)
    try:
        lines = list(read_csv(table, ("a", "b")))
    except UsageError as error:
        assert "is not CSV" in str(error)
    else:
        assert all(set(line.values) == {"a", "b"} for line in lines)
