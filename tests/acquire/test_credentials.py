import sys

import pytest

from spicula.acquire import credentials
from spicula.errors import UsageError

SECRET = "cänary-7f3 a9"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "login.txt"
    path.write_text(f"marie\n{SECRET}\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def test_a_private_file_of_two_lines(file):
    login = credentials.find("physionet.org", file)
    assert (login.user, login.password) == ("marie", SECRET)


def test_a_login_never_shows_itself(file):
    login = credentials.find("physionet.org", file)
    assert SECRET not in f"{login} {login!r}"
    assert "marie" not in f"{login} {login!r}"


def test_windows_line_ends_and_a_mark_at_the_beginning_are_no_part_of_it(file):
    file.write_bytes(b"\xef\xbb\xbfmarie\r\nsecret\r\n")
    login = credentials.find("physionet.org", file)
    assert (login.user, login.password) == ("marie", "secret")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(file, mode):
    file.chmod(mode)
    with pytest.raises(UsageError, match=rf"chmod 600 {file}$"):
        credentials.find("physionet.org", file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"marie\n",
        b"marie\n\n",
        b"\nsecret\n",
        b"marie\nsecret\nmore\n",
        b"marie:secret\nx\n",
        b"\xff\xfe\n\xff\n",
        b"marie\n" + b"secret" * 900,
    ],
)
def test_a_file_of_another_kind_is_refused_without_showing_it(file, content):
    file.write_bytes(content)
    with pytest.raises(UsageError, match="the user's name on line 1, the password on line 2") as error:
        credentials.find("physionet.org", file)
    assert "secret" not in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the credentials .*nothing.txt: No such file"):
        credentials.find("physionet.org", tmp_path / "nothing.txt")


@pytest.fixture
def stored():
    """A keyring in memory, in the place of the user's own."""
    keyring = pytest.importorskip("keyring", reason="the keyring: pip install 'spicula[archives]'")
    from keyring.backend import KeyringBackend

    entries = {}

    class Memory(KeyringBackend):
        priority = 1

        def get_password(self, service, username):
            return entries.get((service, username))

        def set_password(self, service, username, password):
            entries[service, username] = password

        def delete_password(self, service, username):
            del entries[service, username]

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    yield entries
    keyring.set_keyring(before)


def test_the_keyring_is_asked_where_there_is_no_file(stored):
    stored["spicula:physionet.org", "user"] = "marie"
    stored["spicula:physionet.org", "password"] = SECRET
    login = credentials.find("physionet.org", None)
    assert (login.user, login.password) == ("marie", SECRET)


@pytest.mark.parametrize("entry", [None, "user", "password"])
def test_without_both_entries_the_error_says_how_to_store_them(stored, entry):
    if entry:
        stored["spicula:physionet.org", entry] = SECRET
    with pytest.raises(UsageError) as error:
        credentials.find("physionet.org", None)
    assert "keyring set spicula:physionet.org user; keyring set spicula:physionet.org password" in str(error.value)
    assert "--credentials FILE" in str(error.value)
    assert SECRET not in str(error.value)


def test_a_keyring_that_does_not_answer(stored, monkeypatch):
    import keyring
    from keyring.backends.fail import Keyring

    keyring.set_keyring(Keyring())
    with pytest.raises(UsageError, match=r"the keyring does not answer \(NoKeyringError\): use --credentials FILE"):
        credentials.find("physionet.org", None)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(UsageError, match=r"--credentials FILE .*pip install 'spicula\[archives\]'"):
        credentials.find("physionet.org", None)
