"""The account: counts, reasons, and the table in the target."""

import csv

from spicula.acquire.account import Account, Row

ROWS = [
    Row("1.2.3", "a/b", "complete", 2_000_000, checks="MD5", source="upstream"),
    Row("1.2.4", "a/c", "complete", 500, source="mirror"),
    Row("1.2.5", "a/d", "skipped", 1_000, source="upstream"),
    Row("1.2.6", "", "failed", reason="no, luck"),
]


def test_in_words(tmp_path):
    assert Account(tmp_path, ROWS).as_text().splitlines() == [
        "failed 1.2.6: no, luck",
        f"{tmp_path}: 2 complete (2.0 MB, 1 of them from the mirror), 1 skipped as already whole (1.0 KB), 1 failed; "
        "the same command tries those again",
    ]
    assert Account(tmp_path, ROWS[:1]).as_text() == (
        f"{tmp_path}: 1 complete (2.0 MB), 0 skipped as already whole (0 B), 0 failed"
    )


def test_many_failures_are_counted_and_not_all_named(tmp_path):
    account = Account(tmp_path, [Row(str(number), "", "failed", reason="no") for number in range(50)])
    lines = account.as_text().splitlines()
    assert len(lines) == 22
    assert lines[20] == f"and 30 more, in {tmp_path}/download.csv"
    assert len(account.failed) == 50


def test_as_data(tmp_path):
    said = Account(tmp_path, ROWS, "terms: CC BY 3.0").as_json()
    assert said == {
        "to": str(tmp_path),
        "complete": 2,
        "complete_bytes": 2_000_500,
        "from_mirror": 1,
        "skipped": 1,
        "skipped_bytes": 1_000,
        "failed": [{"key": "1.2.6", "reason": "no, luck"}],
        "table": str(tmp_path / "download.csv"),
        "note": "terms: CC BY 3.0",
    }


def test_the_table_has_every_row(tmp_path):
    Account(tmp_path, ROWS).write()
    with (tmp_path / "download.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["key"], row["status"], row["bytes"], row["reason"]) for row in rows] == [
        (row.key, row.status, str(row.bytes), row.reason) for row in ROWS
    ]
