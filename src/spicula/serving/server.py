"""Running the application: one process, one event loop, an address that is ours before anything loads, a clean end."""

import errno
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING

from spicula.errors import SpiculaError, UsageError
from spicula.serving.settings import ServeSettings, Tls

if TYPE_CHECKING:
    from spicula.serving.service import Service

_LIBRARIES = ("fastapi", "starlette", "uvicorn", "httptools", "prometheus_client", "python_multipart")
#: Files beside connections: models, logs, uploads, worker processes.
_OTHER_FILES = 512


def serve(settings: ServeSettings) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit status: 0 after a clean end.

    Raises:
        UsageError: a setting contradicts another, there are no tokens for an address that others can reach, or the
            extra `serve` is missing.
        SpiculaError: a bundle is refused, the address is in use, or a file cannot be read or written.
    """
    _check(settings)
    try:
        from spicula.serving import lines
        from spicula.serving.dicomweb import peers
        from spicula.serving.process import Process
        from spicula.serving.service import Service
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _LIBRARIES:
            raise
        raise UsageError(f"serve needs {error.name}: pip install 'spicula[serve]'") from None
    peers.of_settings(settings)
    service = Service(settings)
    listening = _listen(service)
    try:
        tls = _tls_context(settings.tls) if settings.tls else None
        service.audit.open()
        with lines.standard_error(service.metrics):
            Process(service, listening, tls).run()
    finally:
        listening.close()
    if service.failure is not None:
        raise service.failure
    return 0


def _check(settings: ServeSettings) -> None:
    if settings.precision == "bf16" and settings.provider != "openvino":
        raise UsageError(f"--provider {settings.provider} has no bf16 arithmetic here; --precision bf16 needs openvino")
    for proxy in settings.proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            raise UsageError(f"--proxy {proxy} is no address such as 10.0.0.2 or 10.0.0.0/24") from None


def _listen(service: "Service") -> socket.socket:
    """Bind the address; refuse one that others can reach where there are no tokens."""
    settings = service.settings
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(f"--host {settings.host} is no address of this machine") from None
    family, _, _, _, address = found[0]
    if not service.tokens and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise UsageError(
            f"--host {settings.host} can be reached by others, and there are no tokens: give --tokens FILE or "
            "SPICULA_TOKENS, or leave it at 127.0.0.1"
        )
    _allow_files(service.limits["connections"] + _OTHER_FILES)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        hints = {
            errno.EADDRINUSE: "it is in use; end what uses it, or take another with --port (0: a free one)",
            errno.EACCES: "ports below 1024 need rights of their own; take another with --port",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }
        why = hints.get(error.errno or 0, error.strerror)
        raise SpiculaError(f"cannot listen at {settings.host} port {settings.port}: {why}") from None
    return listening


def _allow_files(needed: int) -> None:
    """Raise the soft limit of open files as far as it is needed and allowed."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        if wanted < needed:
            raise UsageError(
                f"{needed} open files are needed, {hard} are allowed: raise it (ulimit -Hn), or give a smaller "
                "--limit connections=N"
            )


def _tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (tls.certificate, tls.key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except (ssl.SSLError, ValueError):
        raise UsageError(
            f"{tls.certificate} and {tls.key} are not a certificate and its key, in PEM and without a password"
        ) from None
    return context
