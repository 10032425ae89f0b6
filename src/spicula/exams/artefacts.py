"""The store of what the stages make: crops, heatmaps, pictures, manifests. Named by content, never changed."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from spicula import files, stores
from spicula.errors import SpiculaError

_NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,8}")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


class LostArtefactError(SpiculaError):
    """An artefact that the ledger names is missing or damaged: it concerns its exam alone.

    Attributes:
        what: the artefact, and what is wrong with it, without the way out.
    """

    def __init__(self, what: str, store: str) -> None:
        super().__init__(
            f"{what}; restore it from a copy, or make it again with the models that made it: spicula exams run SOURCE "
            f"--workspace {store.removesuffix('/artefacts')} --bundle BUNDLE --check-artefacts"
        )
        self.what = what


class Artefacts:
    """A content-addressed store in a folder, `s3://` or `gs://`: a name is the SHA-256 of the content and a suffix.

    The same content twice is kept once. Objects lie under the first two digits of their names. Credentials for object
    stores come from the environment, as s3fs and gcsfs read them.

    Args:
        uri: the folder (made when something is put into it), or the address.
        anew: write what is put in even where it seems to be there, for it may be damaged.

    Raises:
        UsageError: the address is of another kind, or the package that reaches it is missing.
        SpiculaError: there are no credentials, or odd ones.
    """

    def __init__(self, uri: str | Path, anew: bool = False) -> None:
        self.uri = stores.place_of(uri)
        self._anew = anew
        self._remote = stores.file_system(self.uri) if stores.is_remote(self.uri) else None

    def put(self, data: bytes, suffix: str) -> str:
        """Keep `data`, and return its name.

        Args:
            data: the content.
            suffix: of the name: a dot, and up to eight small letters or digits.

        Raises:
            SpiculaError: the store cannot be written.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise ValueError(f"{suffix!r} is no suffix")
        name = hashlib.sha256(data).hexdigest() + suffix
        # A file of the same name and size is that content, unless the disk is at fault, which `get` finds.
        if self._anew or self._size(name) != len(data):
            self._write(name, data)
        return name

    def get(self, name: str) -> bytes:
        """Return the content of that name.

        Raises:
            LostArtefactError: it is not there, or is not what it was.
            SpiculaError: the store cannot be read.
        """
        data = self._read(name)
        if hashlib.sha256(data).hexdigest() != name.partition(".")[0]:
            raise LostArtefactError(f"{self._place(name)} is damaged: its content is not what its name says", self.uri)
        return data

    def put_json(self, value: Any) -> str:
        """Keep JSON values in canonical form (sorted keys, no spaces), and return their SHA-256.

        It is that of `files.sha256_json`. NaN is refused: JSON has none.
        """
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return self.put(text.encode(), ".json").removesuffix(".json")

    def get_json(self, digest: str) -> Any:
        """Return the JSON values of that SHA-256.

        Raises:
            LostArtefactError: they are not there, or are not what they were.
            SpiculaError: the store cannot be read.
        """
        return json.loads(self.get(f"{digest}.json"))

    def has(self, name: str) -> bool:
        """Whether there is an artefact of that name."""
        return self._size(name) is not None

    def path(self, name: str) -> Path | None:
        """Return the file of that name, whether it is there or not; None in an object store."""
        return Path(self._place(name)) if self._remote is None else None

    def _place(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an artefact")
        return f"{self.uri}/{name[:2]}/{name}"

    def _size(self, name: str) -> int | None:
        place = self._place(name)
        try:
            return Path(place).stat().st_size if self._remote is None else int(self._remote.size(place))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # of a service that fails, these libraries raise nearly anything
            raise stores.failure("read", place, error) from None

    def _read(self, name: str) -> bytes:
        place = self._place(name)
        try:
            return Path(place).read_bytes() if self._remote is None else bytes(self._remote.cat_file(place))
        except (FileNotFoundError, NotADirectoryError):
            raise LostArtefactError(f"{place} is missing, though the ledger names it", self.uri) from None
        except Exception as error:
            raise stores.failure("read", place, error) from None

    def _write(self, name: str, data: bytes) -> None:
        place = self._place(name)
        if self._remote is None:
            files.write_bytes(Path(place), data)
            return
        try:
            self._remote.pipe_file(place, data)  # an object appears whole or not at all
        except Exception as error:
            raise stores.failure("written", place, error) from None
