"""The Cancer Imaging Archive, through the REST interface of its NBIA service.

Version 1 of the interface is for what is public; version 2 is the same for those who log in. What a call answers is
written in the service's own source (github.com/CBIIT/NBIA-TCIA, `software/nbia-api`).
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spicula.acquire import credentials, transfer
from spicula.acquire.credentials import Login
from spicula.acquire.transfer import Client, Refused, Retry, Tell, patiently
from spicula.acquire.types import Request
from spicula.errors import SpiculaError, UsageError

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

#: The official service. `Request.server` stands in for it.
OFFICIAL = "https://services.cancerimagingarchive.net/nbia-api"

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_CLIENT_ID = "NBIA"
_RENEW_BEFORE_SECONDS = 60
_DEFAULT_LIFE_SECONDS = 300


class Nbia:
    """An NBIA service, asked from any number of threads.

    Args:
        request: says which server, and whose login.
    """

    def __init__(self, request: Request) -> None:
        self.base: str = re.sub(r"(/services(/v\d)?)?/*$", "", request.server or OFFICIAL)
        self.host = transfer.host_of(self.base)
        self._client = Client(http=request.server is not None and request.server.startswith("http:"))
        self._token: _Token | None = None
        if request.credentials:
            self.log_in(request.credentials)

    @property
    def is_logged_in(self) -> bool:
        """Whether requests are made in a user's name."""
        return self._token is not None

    def log_in(self, file: Path | None = None) -> None:
        """Ask in the user's name from now on.

        Args:
            file: the credentials; None: the keyring.

        Raises:
            UsageError: there are none, or they would be sent in the clear.
        """
        if not self.base.startswith("https:") and self.host not in _LOOPBACK:
            raise UsageError(
                f"--server {self.base}: a password is never sent over plain http; take an https:// address"
            )
        self._token = _Token(self._client, f"{self.base}/oauth/token", credentials.find(self.host, file))

    def rows(self, call: str, **params: str) -> list[dict[str, Any]]:
        """Return the rows of an answer; an empty answer has none.

        Raises:
            Retry: it may work later.
            Refused: the service will not say.
        """
        response = self._get(call, params | {"format": "json"})
        if not response.content.strip():
            return []
        try:
            rows = response.json()
        except ValueError:
            raise Retry(f"{self.host} answered {call} with something else than JSON") from None
        found = rows if isinstance(rows, list) else [rows]
        return [row for row in found if isinstance(row, dict)]

    def text(self, call: str, **params: str) -> str:
        """Return an answer in plain text; raises as `rows`."""
        return str(self._get(call, params).content, "utf-8", "replace")

    def fetch(self, call: str, path: Path, tell: Tell, *, magic: bytes, **params: str) -> None:
        """Fetch the answer to a call into a file, as `transfer.Client.fetch`.

        Raises:
            Retry: it may work later.
            SpiculaError: the series is not public, or not for this user; the message says what to do.
        """

        def go(auth: "_Token | None") -> None:
            self._client.fetch(self._url(call), path, tell, params=params, auth=auth, magic=magic)

        self._authorised(go)

    def _get(self, call: str, params: Mapping[str, str]) -> "requests.Response":
        return self._authorised(lambda auth: self._client.get(self._url(call), params=params, auth=auth))

    def _url(self, call: str) -> str:
        return f"{self.base}/services/{'v2' if self._token else 'v1'}/{call}"

    def _authorised(self, go: "Callable[[_Token | None], T]") -> T:
        """Ask, and where the token has expired, once more with a new one."""
        try:
            try:
                return go(self._token)
            except Refused as error:
                if error.status != 401 or self._token is None:
                    raise
                self._token.expire()
                return go(self._token)
        except Refused as error:
            raise self._explained(error) from None

    def _explained(self, error: Refused) -> Refused:
        """Say what can be done. The service answers with 400 as well where a series is not for the one who asks."""
        if error.status not in (400, 401, 403):
            return error
        if self._token:
            words = "your account has no access to it: ask for access on the collection's page"
        else:
            words = "it is not public: give the login of an account that has access, with --credentials FILE"
        return Refused(f"{self.host} refused it (HTTP status {error.status}); {words}", error.status)


class _Token:
    """What authorises requests: asked for with the user's login, and anew before it expires. Its text shows nothing."""

    def __init__(self, client: Client, url: str, login: Login) -> None:
        self._client = client
        self._url = url
        self._login = login
        self._lock = threading.Lock()
        self._value = ""
        self._good_until = 0.0

    def __call__(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        request.headers["Authorization"] = f"Bearer {self._current()}"
        return request

    def expire(self) -> None:
        """Take no token of before any more."""
        with self._lock:
            self._good_until = 0.0

    def _current(self) -> str:
        with self._lock:
            if time.monotonic() >= self._good_until:
                self._value, life = patiently(self._ask)
                self._good_until = time.monotonic() + max(life - _RENEW_BEFORE_SECONDS, life / 2)
            return self._value

    def _ask(self) -> tuple[str, float]:
        host = transfer.host_of(self._url)
        form = {
            "username": self._login.user,
            "password": self._login.password,
            "client_id": _CLIENT_ID,
            "grant_type": "password",
        }
        try:
            answer = self._client.post(self._url, form).json()
            return str(answer["access_token"]), float(answer.get("expires_in", _DEFAULT_LIFE_SECONDS))
        except Refused as error:
            raise SpiculaError(
                f"{host} does not accept the login (HTTP status {error.status}): check the user name and the password"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise Retry(f"{host} answered a login with something else than a token") from None
