"""Pseudonyms agree between processes that share a key file, and nothing else undoes them."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.cli import main
from spicula.deidentify import Pseudonyms
from spicula.errors import SpiculaError, UsageError


def test_the_same_id_has_the_same_pseudonym_and_leads_back(tmp_path):
    first = Pseudonyms(tmp_path / "key")
    made = {kind: first.of(kind, "4711") for kind in ("patient", "exam", "image", "uid")}
    again = Pseudonyms(tmp_path / "key")

    assert {kind: again.of(kind, "4711") for kind in made} == made
    assert len(set(made.values())) == 4
    assert {again.original_of(pseudonym) for pseudonym in made.values()} == {"4711"}
    assert again.original_of("P-AAAAAAAAAAAAAAAA") is None


def test_another_key_file_gives_other_pseudonyms(tmp_path):
    one, other = Pseudonyms(tmp_path / "one"), Pseudonyms(tmp_path / "other")

    assert one.of("patient", "4711") != other.of("patient", "4711")
    assert other.original_of(one.of("patient", "4711")) is None


@given(ids=st.lists(st.text(min_size=1, max_size=40), unique=True, min_size=2, max_size=20))
def test_different_ids_have_different_pseudonyms_of_a_safe_form(tmp_path_factory, ids):
    pseudonyms = Pseudonyms(tmp_path_factory.mktemp("keys") / "key")
    made = [pseudonyms.of("patient", one) for one in ids]
    uids = [pseudonyms.of("uid", one) for one in ids]

    assert len(set(made)) == len(set(uids)) == len(ids)
    assert all(re.fullmatch(r"P-[A-Z2-7]{16}", one) for one in made)
    assert all(re.fullmatch(r"2\.25\.[1-9][0-9]*", one) and len(one) <= 64 for one in uids)


def test_the_key_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "new" / "key"
    Pseudonyms(path)
    assert path.stat().st_mode & 0o777 == 0o600

    path.chmod(0o644)
    with pytest.raises(UsageError, match=r"can be read by others; make it private with: chmod 600 "):
        Pseudonyms(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a database at all, but rather long", b"SQLite format 3\0" + b"\0" * 200]
)
def test_another_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises((UsageError, SpiculaError), match="key"):
        Pseudonyms(path)

    assert path.read_bytes() == content


def test_a_key_file_without_its_secret_is_refused(tmp_path):
    path = tmp_path / "key"
    Pseudonyms(path)
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM facts WHERE name = 'secret'")

    with pytest.raises(UsageError, match="is not a key file of Spicula"):
        Pseudonyms(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not a file"):
        Pseudonyms(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(SpiculaError, match="cannot use the key file"):
        Pseudonyms(tmp_path / "link")
    (tmp_path / "text").write_text("")
    for open_it in (Pseudonyms, Pseudonyms.open):
        with pytest.raises(SpiculaError, match=r"cannot make the key file|no key file"):
            open_it(tmp_path / "text" / "key")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
@pytest.mark.parametrize("rights", [0o700, 0o755])
def test_a_folder_of_somebody_else_is_a_message_and_no_traceback(tmp_path, rights):
    folder = tmp_path / "others"
    folder.mkdir()
    folder.chmod(rights)
    for parent in folder.parents[:-1]:
        parent.chmod(parent.stat().st_mode | 0o055)
    code = (
        "from pathlib import Path; import sys; from spicula.deidentify import Pseudonyms; Pseudonyms(Path(sys.argv[1]))"
    )
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    done = subprocess.run(
        [*nobody, sys.executable, "-c", code, folder / "key"], capture_output=True, text=True, check=False
    )

    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("spicula.errors.SpiculaError: cannot")
    assert "Permission denied" in last


def test_threads_and_processes_that_start_at_once_share_one_secret(tmp_path):
    path = tmp_path / "key"
    code = f"""
from pathlib import Path
from spicula.deidentify import Pseudonyms
print(Pseudonyms(Path({str(path)!r})).of("patient", "x"))
"""

    def run(_: int) -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(run, range(6)))

    assert len(set(made)) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["key"]


def test_many_links_at_once(tmp_path):
    pseudonyms = Pseudonyms(tmp_path / "key")
    made = pseudonyms.of_all([("image", str(number)) for number in range(3000)])

    assert len(set(made)) == 3000
    assert pseudonyms.original_of(made[2999]) == "2999"


def test_the_command_relink_says_what_a_pseudonym_stands_for(tmp_path, capsys):
    path = tmp_path / "key"
    pseudonym = Pseudonyms(path).of("patient", "4711")

    assert main(["relink", str(path), pseudonym]) == 0
    assert capsys.readouterr().out == f"{pseudonym}\t4711\n"
    assert main(["relink", str(path), pseudonym, "P-NOBODY"]) == 1
    assert "knows no pseudonym P-NOBODY" in capsys.readouterr().err
    assert main(["relink", str(tmp_path / "none"), pseudonym]) == 2
    assert not (tmp_path / "none").exists()
