"""HTTP for downloads: time-outs, what is worth another try and what is not, and files continued by range.

Nothing here ever prints or stores what authorises a request.
"""

import email.utils
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from spicula import __version__, files
from spicula.errors import SpiculaError, UsageError

if TYPE_CHECKING:
    import requests

T = TypeVar("T")
Tell = Callable[[int], None]


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        connect_seconds: for a connection.
        read_seconds: for the next bytes of an answer.
        first_wait_seconds: before the second try; doubled for each further one.
        longest_wait_seconds: between two tries, also where the server asks for more.
        outage_seconds: while nothing can be reached at all, before giving up.
    """

    connect_seconds: float = 15
    read_seconds: float = 90
    first_wait_seconds: float = 1
    longest_wait_seconds: float = 120
    outage_seconds: float = 300


PATIENCE = Patience()

# What has been read and not yet written is what a kill costs.
_CHUNK_BYTES = 2**14
_MOST_REDIRECTS = 5
_RETRIES_UNREACHABLE = 2
_PASSING = (408, 425, 429)
_NO_SUCH_RANGE = 416


class Retry(Exception):
    """Something failed that may pass: try again.

    Attributes:
        reason: what failed, in one line.
        after_seconds: how long the server asks to wait; None: it does not say.
    """

    def __init__(self, reason: str, after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_seconds = after_seconds


class Unreachable(Retry):
    """No connection to the server: the network is down, or the server is."""


class Refused(SpiculaError):
    """The server answered, and will not give what was asked for.

    Attributes:
        status: its HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def wait_seconds(attempt: int, asked: float | None = None) -> float:
    """Return how long to wait before the next try: doubling, with jitter, and no less than the server asks for.

    Args:
        attempt: how many tries have failed, from 1.
        asked: the server's Retry-After, in seconds.
    """
    # no two clients come back together: "full jitter" over the upper half
    doubling = PATIENCE.first_wait_seconds * 2.0 ** min(attempt - 1, 20) * random.uniform(0.5, 1)
    return min(max(doubling, asked or 0), PATIENCE.longest_wait_seconds)


def patiently(call: Callable[[], T], retries: int = 4) -> T:
    """Call until it does not raise Retry: what a download begins with, where somebody waits for the first word.

    Raises:
        SpiculaError: it failed once and again after every retry.
    """
    for attempt in range(1, retries + 2):
        try:
            return call()
        except Retry as error:
            most = min(retries, _RETRIES_UNREACHABLE) if isinstance(error, Unreachable) else retries
            if attempt > most:
                raise SpiculaError(error.reason) from error
            time.sleep(wait_seconds(attempt, error.after_seconds))
    raise AssertionError


def host_of(url: str) -> str:
    """Return the host of an address, for messages and for finding its login."""
    return urlsplit(url).hostname or url


class Client:
    """Requests to servers, from any number of threads. Certificates are always verified.

    Args:
        http: whether plain http is allowed; a redirect never leads from https to it.
    """

    def __init__(self, http: bool = False) -> None:
        self._http = http
        self._local = threading.local()  # a session is not made for several threads

    def get(self, url: str, params: Mapping[str, str] | None = None, auth: Any = None) -> "requests.Response":
        """Return the whole answer to a GET.

        Raises:
            Retry: it may work later.
            Refused: the server will not give it.
        """
        with self._answer("GET", url, params=params, auth=auth) as response:
            _read_all(response)
            return response

    def post(self, url: str, data: Mapping[str, str]) -> "requests.Response":
        """Return the whole answer to a form sent by POST, which no redirect leads elsewhere; raises as `get`."""
        with self._answer("POST", url, data=data, allow_redirects=False) as response:
            _read_all(response)
            return response

    def fetch(
        self,
        url: str,
        path: Path,
        tell: Tell,
        *,
        params: Mapping[str, str] | None = None,
        auth: Any = None,
        magic: bytes = b"",
    ) -> None:
        """Fetch a file, continuing what an attempt that was cut short left beside it, where the server lets us.

        Until it is whole, the file is `part_of(path)`. A server that names a version of the file (a strong ETag, or a
        date) and takes ranges sends the rest only; from others it comes anew.

        Args:
            url: the address.
            path: where it goes; when it is there, nothing is done.
            tell: called with the number of bytes as they arrive.
            params: of the query.
            auth: what authorises the request, as requests takes it.
            magic: how the file must begin; a page about an error does not.

        Raises:
            Retry: it may work later; what arrived is kept.
            Refused: the server will not give it.
        """
        if path.exists():
            return
        part, state = part_of(path), _read_state(path)
        have = part.stat().st_size if part.exists() and state.get("validator") else 0
        if have and have == state.get("length"):
            part.replace(path)
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": state["validator"]}
        try:
            with self._answer("GET", url, params=params, auth=auth, headers=headers) as response:
                if response.status_code == 206:
                    _check_range(response, have, state.get("length"), path)
                else:
                    have = 0
                    part.unlink(missing_ok=True)
                    files.write_json(_state_of(path), _state_from(response))
                _receive(response, part, tell, b"" if have else magic)
        except Refused as error:
            if error.status == _NO_SUCH_RANGE and have:
                forget(path)
                raise Retry(f"{host_of(url)} has less of it than came before") from None
            raise
        _state_of(path).unlink(missing_ok=True)
        part.replace(path)

    @contextmanager
    def _answer(self, method: str, url: str, **options: Any) -> Iterator["requests.Response"]:
        """Send a request and yield the answer, its body not read, when its status is one of success."""
        import requests

        self._check_scheme(url)
        with _failures_named(url):
            options["auth"] = options.get("auth") or _no_auth
            session = self._session()
            timeouts = (PATIENCE.connect_seconds, PATIENCE.read_seconds)
            try:
                response = session.request(method, url, stream=True, timeout=timeouts, **options)
            except requests.TooManyRedirects:
                raise Retry(f"{host_of(url)} redirects more than {_MOST_REDIRECTS} times") from None
            with response:
                _check_status(response, host_of(url))
                yield response

    def _session(self) -> "requests.Session":
        if not hasattr(self._local, "session"):
            self._local.session = _make_session(self._check_scheme)
        session: requests.Session = self._local.session
        return session

    def _check_scheme(self, url: str, came_from: str = "") -> None:
        scheme = urlsplit(url).scheme
        if scheme == "http" and came_from.startswith("https:"):
            raise SpiculaError(f"{host_of(came_from)} redirects to plain http, which was not followed")
        if scheme != "https" and not (scheme == "http" and self._http):
            raise UsageError(f"{url}: only https:// is allowed here")


def part_of(path: Path) -> Path:
    """Return where a file is while it is not whole."""
    return path.with_name(f"{path.name}.part")


def can_continue(path: Path) -> bool:
    """Say whether a file that is not whole can be continued by range."""
    return part_of(path).exists() and bool(_read_state(path).get("validator"))


def forget(path: Path) -> None:
    """Remove a file, whole or not, and what is known of it."""
    for name in (path, part_of(path), _state_of(path)):
        name.unlink(missing_ok=True)


def _state_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state_of(path).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _state_from(response: "requests.Response") -> dict[str, Any]:
    """Return what continuing needs to know: the version of the file (RFC 9110, 13.1.5) and its length."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    takes_ranges = response.headers.get("Accept-Ranges", "").lower() == "bytes"
    length = response.headers.get("Content-Length", "")
    return {"validator": validator if takes_ranges else "", "length": int(length) if length.isdigit() else None}


def _check_range(response: "requests.Response", have: int, length: int | None, path: Path) -> None:
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    if unit != "bytes" or span.partition("-")[0] != str(have) or (length is not None and total != str(length)):
        forget(path)
        raise Retry(f"{host_of(response.url)} sent another range than was asked for")


def _receive(response: "requests.Response", part: Path, tell: Tell, magic: bytes) -> None:
    """Append an answer's body to a file, so that every byte that arrived survives the end of this process."""
    with _failures_named(response.url), part.open("ab", buffering=0) as output:
        for chunk in response.iter_content(_CHUNK_BYTES):
            if not chunk.startswith(magic[: len(chunk)]):
                kind = "a page" if chunk.lstrip().startswith(b"<") else "something else"
                raise Retry(f"{host_of(response.url)} sent {kind} instead of the file")
            magic = b""
            output.write(chunk)
            tell(len(chunk))


def _read_all(response: "requests.Response") -> None:
    with _failures_named(response.url):
        _ = response.content


def _check_status(response: "requests.Response", host: str) -> None:
    status = response.status_code
    if status < 300:
        return
    if status in _PASSING or status >= 500:
        raise Retry(f"{host} answered with HTTP status {status}", _retry_after(response))
    reasons = {401: "asks for a login", 403: "does not allow it", 404: "does not have it"}
    raise Refused(f"{host} {reasons.get(status, 'refused it')} (HTTP status {status})", status)


def _retry_after(response: "requests.Response") -> float | None:
    """Return Retry-After in seconds (RFC 9110, 10.2.3: seconds or a date)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _no_auth(request: T) -> T:
    """Authorise nothing. Without any, requests would look into ~/.netrc."""
    return request


def _make_session(check_scheme: Callable[[str, str], None]) -> "requests.Session":
    import requests

    class Session(requests.Session):  # type: ignore[misc]
        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target: str | None = super().get_redirect_target(resp)
            if target:
                check_scheme(requests.compat.urljoin(resp.url, target), resp.url)
            return target

    session = Session()
    session.max_redirects = _MOST_REDIRECTS
    session.headers["User-Agent"] = f"spicula/{__version__}"
    return session


@contextmanager
def _failures_named(url: str) -> Iterator[None]:
    """Turn the failures of requests into ours, without the address, which may hold what must not be shown."""
    import requests

    host = host_of(url)
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise SpiculaError(
            f"the certificate of {host} cannot be verified: check this machine's clock, proxy and certificates"
        ) from error
    except (requests.ConnectTimeout, requests.exceptions.ProxyError) as error:
        raise Unreachable(_unreachable(host, "no answer")) from error
    except requests.Timeout as error:
        raise Retry(f"{host} sent nothing for {PATIENCE.read_seconds:.0f} s") from error
    except requests.ConnectionError as error:
        raise _from_connection_error(error, host) from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise Retry(f"the connection to {host} was cut") from error
    except requests.RequestException as error:
        raise SpiculaError(f"cannot ask {host} ({type(error).__name__})") from error


def _from_connection_error(error: Exception, host: str) -> Retry:
    from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError, ReadTimeoutError

    cause = error.args[0] if error.args else None
    if isinstance(cause, ReadTimeoutError):  # requests gives it this way where a body is read
        return Retry(f"{host} sent nothing for {PATIENCE.read_seconds:.0f} s")
    if isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError):
        name_unknown = isinstance(cause.reason, NameResolutionError)
        return Unreachable(_unreachable(host, "its name is not known" if name_unknown else "no connection"))
    return Retry(f"the connection to {host} was cut")


def _unreachable(host: str, why: str) -> str:
    return f"cannot reach {host} ({why}): check the network, or take from a copy with --mirror"
