"""C-STORE: a PACS that speaks DICOM sends objects to the same archive as STOW-RS; C-ECHO is answered.

The data set is kept as it came; the file meta information before it is written here, as DICOM has it (PS3.10 7.1).
"""

import logging
import sqlite3
import threading
from hashlib import sha256
from socketserver import BaseServer
from typing import TYPE_CHECKING, Any

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import ThreadedAssociationServer

from spicula import files
from spicula.errors import SpiculaError
from spicula.serving import problems
from spicula.serving.dicomweb import peers
from spicula.serving.dicomweb.archive import DUPLICATE, NO_ROOM, Archive
from spicula.serving.problems import Problem
from spicula.serving.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Associations at a time. An object is in memory until it is whole: at most `image-bytes` for each of them.
MOST_ASSOCIATIONS = 8
#: Connections at a time: of those that have not yet asked for an association.
_MOST_CONNECTIONS = 32
#: Of a protocol data unit (PS3.8 9.3): requests for an association are the longest, data come in those of 16 KiB.
_MOST_PDU_BYTES = 2**20
#: A peer that says nothing for so long is let go.
_SECONDS = 30
_VERIFICATION = "1.2.840.10008.1.1"  # C-ECHO
#: What a command and its wrapping add to an object.
_OVERHEAD_BYTES = 2**20
#: Of PS3.8 table 9-21: rejected for good, by the user of the service, the calling title is not known.
_UNKNOWN_CALLER = (1, 1, 3)

_log = logging.getLogger("spicula.serving")


class Listener:
    """A port at which objects are taken in.

    Args:
        service: its settings, limits, audit log.
        archive: takes the objects.

    Raises:
        UsageError: anybody could send.
        SpiculaError: the port is in use.
    """

    def __init__(self, service: Service, archive: Archive) -> None:
        settings = service.settings
        assert settings.dicom_port is not None
        self._service, self._archive = service, archive
        self._peers = peers.of_settings(settings)
        self._came: dict[Any, int] = {}
        service.spool.path()  # makes the folder, before threads ask for it
        try:
            self._server = self._open()
        except OSError as error:
            raise SpiculaError(
                f"cannot listen at --dicom-port {settings.dicom_port}: {error.strerror}; name another"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="c-store", daemon=True)
        self._thread.start()
        host, port = self._server.server_address[:2]
        _log.info("C-STORE as %s at %s port %d", settings.ae_title, host, port)

    def shutdown(self) -> None:
        """Take nothing more; associations are aborted, and whoever sends tries again."""
        self._server.shutdown()
        for association in self._server.active_associations:
            association.abort()
        self._server.server_close()
        self._thread.join()

    def _open(self) -> ThreadedAssociationServer:
        settings = self._service.settings
        entity = ApplicationEntity(settings.ae_title)
        entity.require_called_aet = True
        entity.maximum_associations = MOST_ASSOCIATIONS
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _SECONDS
        entity.add_supported_context(_VERIFICATION)
        for context in AllStoragePresentationContexts:
            assert context.abstract_syntax is not None
            entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        _config.LOG_HANDLER_LEVEL = "none"  # its lines quote what peers send
        server = entity.make_server(
            (settings.host, settings.dicom_port or 0),
            evt_handlers=[
                (evt.EVT_CONN_OPEN, _bound),
                (evt.EVT_REQUESTED, self._check),
                (evt.EVT_DATA_RECV, self._count),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_CONN_CLOSE, self._forget),
            ],
            server_class=_server_class(self),
        )
        assert isinstance(server, ThreadedAssociationServer)
        return server

    def may_connect(self, address: str, open_now: int) -> bool:
        """Whether a connection is taken."""
        is_free = open_now < _MOST_CONNECTIONS and not self._service.is_draining
        return is_free and peers.may_connect(self._peers, address)

    def _check(self, event: "evt.Event") -> None:
        """Refuse an association that nobody on the list asks for."""
        requestor = event.assoc.requestor
        title = requestor.primitive.calling_ae_title.strip() if requestor.primitive else ""
        if not peers.may_send(self._peers, title, requestor.address or ""):
            event.assoc.acse.send_reject(*_UNKNOWN_CALLER)
            event.assoc.kill()

    def _count(self, event: "evt.Event") -> None:
        """Abort an association whose object grows too large."""
        came = self._came[event.assoc] = self._came.get(event.assoc, 0) + len(event.data)
        if came > self._service.limits["image-bytes"] + _OVERHEAD_BYTES:
            self._service.metrics.count("instances", way="c-store", outcome="refused")
            event.assoc.abort()

    def _forget(self, event: "evt.Event") -> None:
        self._came.pop(event.assoc, None)

    def _store(self, event: "evt.Event") -> int:
        """Keep an object, and return the status of C-STORE (PS3.4 table B.2-1)."""
        self._came.pop(event.assoc, None)
        try:
            status = self._keep(event.encoded_dataset())
        except (Problem, SpiculaError, OSError, sqlite3.Error, MemoryError):
            status = NO_ROOM
        except Exception as error:
            _log.error("an object of C-STORE failed: %s", problems.traceback_of(error))
            status = 0x0110
        outcome = "refused" if status else "stored"
        self._service.metrics.count("instances", way="c-store", outcome=outcome)
        return status

    def _keep(self, data: bytes) -> int:
        if len(data) > self._service.limits["image-bytes"]:
            return NO_ROOM
        digest = sha256(data).hexdigest()
        path = self._service.spool.path()
        try:
            files.write_bytes(path, data)
            failure = self._archive.store(path, digest).failure
        finally:
            path.unlink(missing_ok=True)
        failed = [digest] if failure else []
        self._service.audit.write(None, "store", who="c-store", objects=[digest], failed=failed)
        return 0x0110 if failure == DUPLICATE else failure


def _bound(event: "evt.Event") -> None:
    """Let a connection fail that announces a longer message than any is; pynetdicom would read on without end."""
    stream: Any = event.assoc.dul.socket
    receive = stream.recv

    def bounded(count: int) -> bytearray:
        if count > _MOST_PDU_BYTES:
            raise OSError
        received: bytearray = receive(count)
        return received

    stream.recv = bounded


def _server_class(listener: Listener) -> type[ThreadedAssociationServer]:
    class Server(ThreadedAssociationServer):
        def verify_request(self, request: Any, client_address: "Sequence[Any]") -> bool:
            return listener.may_connect(str(client_address[0]), len(self.active_associations))

        def shutdown(self) -> None:
            BaseServer.shutdown(self)  # pynetdicom's own asks for a server that its own thread runs

        def handle_error(self, request: Any, client_address: Any) -> None:
            _log.error("a connection of C-STORE failed")

    return Server
