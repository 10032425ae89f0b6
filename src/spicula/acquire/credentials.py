"""The user's own name and password for an archive: from a private file or the keyring, never from the command line."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from spicula.errors import UsageError

#: A file of two lines is shorter than this; what is longer is another file, named by mistake.
MAX_FILE_BYTES = 4096


@dataclass(frozen=True)
class Login:
    """A user's name and password. Its text shows neither."""

    user: str = field(repr=False)
    password: str = field(repr=False)


def find(service: str, file: Path | None) -> Login:
    """Return the user's login for a service.

    Args:
        service: the host that asks for it (`physionet.org`).
        file: a file with the user's name on line 1 and the password on line 2 that only its owner can read; None: the
            keyring, where service `spicula:<host>` holds the entries `user` and `password`.

    Raises:
        UsageError: there is none, or others can read the file; the message says what to do.
    """
    return _from_file(file) if file else _from_keyring(service)


def _from_file(file: Path) -> Login:
    try:
        with file.open("rb") as stream:
            if os.name == "posix" and stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise UsageError(f"{file} has a password that others can read: chmod 600 {file}")
            data = stream.read(MAX_FILE_BYTES + 1)
        lines = data.decode("utf-8-sig").replace("\r\n", "\n").rstrip("\n").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read the credentials {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        lines = []
    if len(data) > MAX_FILE_BYTES or len(lines) != 2 or not all(lines) or ":" in lines[0]:
        raise UsageError(f"{file} has no credentials: the user's name on line 1, the password on line 2, nothing else")
    return Login(*lines)


def _from_keyring(service: str) -> Login:
    # Two entries, because not every keyring can find the user's name that belongs to a service.
    entry = f"spicula:{service}"
    way_out = f"keyring set {entry} user; keyring set {entry} password (or --credentials FILE, two lines, chmod 600)"
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise UsageError(
            f"{service} needs your login: --credentials FILE with user name and password, one a line, chmod 600 "
            "(for the keyring: pip install 'spicula[archives]')"
        ) from None
    try:
        user, password = keyring.get_password(entry, "user"), keyring.get_password(entry, "password")
    except keyring.errors.KeyringError as error:
        raise UsageError(
            f"{service} needs your login, and the keyring does not answer ({type(error).__name__}): "
            "use --credentials FILE with user name and password, one a line, chmod 600"
        ) from None
    if not user or not password:
        raise UsageError(f"{service} needs your login: store it with {way_out}")
    return Login(user, password)
