"""The NBIA service: public and restricted, with a login that is never shown."""

import sys

import pytest
from nbia_server import PASSWORD, TOKEN, USER, Settings, series_uid, whole

from spicula import acquire
from spicula.acquire import nbia as nbia_module
from spicula.acquire.nbia import Nbia
from spicula.acquire.types import Request
from spicula.errors import SpiculaError, UsageError
from spicula.headers import read_dicom


@pytest.fixture
def login(tmp_path):
    return write_login(tmp_path, PASSWORD)


def write_login(tmp_path, password):
    path = tmp_path / "login"
    path.write_text(f"{USER}\n{password}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def no_keyring(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)


def request(server, to, **options):
    return Request("tcia:GENERATED", to, server=server.url, **options)


def images(to):
    return {str(read_dicom(path).SOPInstanceUID): path.read_bytes() for path in to.rglob("*.dcm")}


@pytest.mark.parametrize("ending", ["", "/", "/services", "/services/v1", "/services/v2/"])
def test_the_address_may_end_as_the_documentation_writes_it(nbia, hasty, tmp_path, ending):
    server = nbia(series=1)
    asked = Nbia(Request("tcia:GENERATED", tmp_path, server=server.url + ending))
    assert len(asked.rows("getSeries", Collection="GENERATED")) == 1


def test_the_official_service_is_asked_safely(tmp_path):
    server = Nbia(Request("cbis-ddsm", tmp_path))
    assert server.base == nbia_module.OFFICIAL
    assert server.base.startswith("https://")
    assert server.host == "services.cancerimagingarchive.net"


def test_a_restricted_collection_comes_with_a_login(nbia, hasty, tmp_path, login, capfd):
    server = nbia(restricted=True)
    account = acquire.download(request(server, tmp_path / "to", credentials=login))
    assert [row.status for row in account.rows] == ["complete"] * 4
    assert images(tmp_path / "to") == whole(Settings())
    assert server.requests("token") == 1
    assert_nothing_shown(capfd, tmp_path / "to")


def assert_nothing_shown(capfd, to):
    out, err = capfd.readouterr()
    kept = b"".join(path.read_bytes() for path in to.rglob("*") if path.is_file())
    for secret in (PASSWORD, TOKEN, USER):
        assert secret not in out + err
        assert secret.encode() not in kept


def test_a_token_that_expires_is_asked_for_anew(nbia, hasty, tmp_path, login):
    # the service says one second and takes it for a tenth of one
    server = nbia(restricted=True, series=8, token_life=0.1, rate=100_000, side=64)
    account = acquire.download(request(server, tmp_path / "to", credentials=login, jobs=1))
    assert account.failed == []
    assert server.requests("token") > 2


def test_a_token_is_asked_for_once_by_all_threads(nbia, hasty, tmp_path, login):
    server = nbia(series=20)
    acquire.download(request(server, tmp_path / "to", credentials=login, jobs=8))
    assert server.requests("token") == 1


def test_a_wrong_password_is_one_line(nbia, hasty, tmp_path, capfd):
    server = nbia(restricted=True)
    wrong = write_login(tmp_path, "wrong-canary")
    with pytest.raises(SpiculaError, match=r"does not accept the login \(HTTP status 401\): check the user") as caught:
        acquire.download(request(server, tmp_path / "to", credentials=wrong))
    assert "canary" not in str(caught.value)
    assert server.requests("token") == 1


def test_without_a_login_the_error_says_what_to_do(nbia, hasty, tmp_path):
    server = nbia(restricted=True)
    with pytest.raises(UsageError, match=r"shows the public no collection 'GENERATED'.*--credentials FILE"):
        acquire.download(request(server, tmp_path / "to"))


def test_a_series_that_is_restricted_fails_alone_and_says_what_to_do(nbia, hasty, tmp_path, monkeypatch):
    server = nbia()
    original = nbia_module.Nbia.fetch

    def late(self, *args, **params):
        server.set(restricted=True)
        return original(self, *args, **params)

    monkeypatch.setattr(nbia_module.Nbia, "fetch", late)
    account = acquire.download(request(server, tmp_path / "to"))
    assert len(account.failed) == 4
    assert "it is not public: give the login of an account that has access" in account.failed[0].reason
    assert server.requests("getImageWithMD5Hash") == 4  # no retry helps


def test_the_keyring_is_asked_where_the_public_is_shown_nothing(nbia, hasty, tmp_path, monkeypatch):
    from spicula.acquire import credentials

    server = nbia(restricted=True)
    asked = []

    def find(host, file):
        asked.append((host, file))
        return credentials.Login(USER, PASSWORD)

    monkeypatch.setattr(credentials, "find", find)
    account = acquire.download(request(server, tmp_path / "to"))
    assert account.failed == []
    assert asked == [("127.0.0.1", None)]


def test_a_password_is_never_sent_in_the_clear(tmp_path, login):
    with pytest.raises(UsageError, match="a password is never sent over plain http"):
        Nbia(Request("tcia:X", tmp_path, server="http://nbia.example.org/nbia-api", credentials=login))


def test_an_answer_that_is_no_json_is_tried_again(nbia, hasty, tmp_path):
    server = nbia(series=1)
    server.faults({"call": "getSeries", "kind": "html", "times": 2})
    assert acquire.download(request(server, tmp_path)).failed == []
    server.faults({"call": "getSeries", "kind": "html", "times": 99})
    with pytest.raises(SpiculaError, match="answered getSeries with something else than JSON"):
        acquire.download(request(server, tmp_path))


def test_a_series_that_the_archive_does_not_have(nbia, hasty, tmp_path):
    server = nbia(series=1)
    (tmp_path / "list").write_text(f"{series_uid(0)}\n{series_uid(7)}\n")
    account = acquire.download(request(server, tmp_path / "to", series_file=tmp_path / "list"))
    assert [row.status for row in account.rows] == ["complete", "failed"]
    assert "TCIA does not show it" in account.rows[1].reason
