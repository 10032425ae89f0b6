"""Which web pages may speak to a service that asks for no token: its own alone.

A browser lets any page send forms to 127.0.0.1, and a name of an attacker's domain can be made to mean 127.0.0.1 while
his page is open (DNS rebinding). The first shows in Sec-Fetch-Site and Origin, the second in Host.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from spicula.serving.problems import Problem

_READING = ("GET", "HEAD", "OPTIONS")


def check(method: str, headers: Mapping[str, str], host: str) -> None:
    """Refuse requests that a page of another origin makes.

    Args:
        method: of HTTP.
        headers: by names in small letters.
        host: what the service was told to listen at.

    Raises:
        Problem: 403.
    """
    named = headers.get("host", "")
    if named and not _is_here(_without_port(named), host):
        raise Problem(
            403,
            "host",
            "this service has no tokens and is for this machine alone: ask for it as 127.0.0.1 or localhost, "
            "or start it with --tokens",
        )
    site = headers.get("sec-fetch-site")
    if site is not None:
        is_foreign = site not in ("same-origin", "none") and method not in _READING
    else:
        origin = headers.get("origin")
        is_foreign = origin is not None and urlsplit(origin).netloc.lower() != named.lower()
    if is_foreign:
        raise Problem(403, "origin", "a page of another origin may not use this service")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_here(name: str, host: str) -> bool:
    if name.lower() in ("localhost", host.lower()):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
