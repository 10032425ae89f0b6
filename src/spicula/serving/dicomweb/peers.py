"""Who may send by C-STORE: DICOM has no tokens, so peers are named by title and address."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from spicula.errors import UsageError
from spicula.serving.settings import ServeSettings

_MOST_TITLE = 16  # characters of an AE title, PS3.5 table 6.2-1
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Peer:
    """A peer that may send.

    Attributes:
        title: its AE title.
        network: its address, or a range of them.
    """

    title: str
    network: _Network


def of_settings(settings: ServeSettings) -> tuple[Peer, ...]:
    """Return the peers that may send; none: every one of this machine.

    Raises:
        UsageError: one is odd, or others than this machine can reach the listener, and there are none.
    """
    if settings.dicom_port is None:
        if settings.dicom_peers:
            raise UsageError("--dicom-peer needs --dicom-port")
        return ()
    _title(settings.ae_title, f"--ae-title {settings.ae_title}")
    peers = tuple(_peer(text) for text in settings.dicom_peers)
    if not peers and not _is_loopback(settings.host):
        raise UsageError(
            f"--host {settings.host} lets anybody send to --dicom-port: name who may, --dicom-peer PACS@10.0.0.7, "
            "or leave the host at 127.0.0.1"
        )
    return peers


def may_connect(peers: Iterable[Peer], address: str) -> bool:
    """Whether any peer has this address."""
    listed = tuple(peers)
    return not listed or any(_address(address) in one.network for one in listed)


def may_send(peers: Iterable[Peer], title: str, address: str) -> bool:
    """Whether a peer has this title at this address."""
    listed = tuple(peers)
    return not listed or any(one.title == title and _address(address) in one.network for one in listed)


def _peer(text: str) -> Peer:
    title, _, address = text.rpartition("@")
    try:
        return Peer(_title(title, f"--dicom-peer {text}"), ipaddress.ip_network(address))
    except ValueError:
        raise UsageError(f"--dicom-peer {text} is no TITLE@ADDRESS such as PACS@10.0.0.7 or PACS@10.0.0.0/24") from None


def _title(title: str, where: str) -> str:
    is_odd = not title.isascii() or not title.isprintable() or "\\" in title or title != title.strip()
    if not title or is_odd or len(title) > _MOST_TITLE:
        raise UsageError(f"{where}: an AE title has 1 to {_MOST_TITLE} letters, digits and signs")
    return title


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(text.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found
