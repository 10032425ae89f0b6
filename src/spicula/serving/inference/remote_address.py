"""Where a remote model is: triton://HOST:PORT/MODEL or kserve://HOST:PORT/MODEL, with +https for TLS."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from spicula.errors import UsageError

#: Ports where an address has none: Triton's own, and those of HTTP, at which KServe's gateway listens.
_PORTS = {"triton": 8000, "triton+https": 8000, "kserve": 80, "kserve+https": 443}
#: What a server that asks for a token is sent.
TOKEN = "SPICULA_BACKEND_TOKEN"


@dataclass(frozen=True)
class Address:
    """A remote model.

    Attributes:
        text: as it was given, for messages.
        server: http://HOST:PORT or https://HOST:PORT.
        model: path of the model: /v2/models/MODEL, and /versions/VERSION where one was given.
    """

    text: str
    server: str
    model: str

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries: a token, where the environment has one.

        Raises:
            UsageError: it cannot stand in a header.
        """
        token = os.environ.get(TOKEN, "").strip()
        if not (token.isascii() and token.isprintable()):
            raise UsageError(f"{TOKEN} has characters that no token has")
        return {"Authorization": f"Bearer {token}"} if token else {}


def parse(text: str) -> Address:
    """Read an address.

    Raises:
        UsageError: it is none.
    """
    wrong = f"--backend {text}: expected triton://HOST:PORT/MODEL or kserve://HOST:PORT/MODEL, with +https for TLS"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(wrong) from None
    names = parts.path.strip("/").split("/")
    is_model = len(names) == 1 or (len(names) == 3 and names[1] == "versions")
    if parts.scheme not in _PORTS or not host or not is_model or not all(names):
        raise UsageError(wrong)
    if parts.username or parts.password:
        raise UsageError(f"--backend: an address has no user or password; set {TOKEN} for a server that asks for one")
    if parts.query or parts.fragment:
        raise UsageError(wrong)
    scheme = "https" if parts.scheme.endswith("+https") else "http"
    place = f"[{host}]" if ":" in host else host
    server = f"{scheme}://{place}:{port or _PORTS[parts.scheme]}"
    return Address(text, server, f"/v2/models/{'/'.join(names)}")
