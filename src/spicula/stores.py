"""Object stores: S3 and Google Cloud Storage by their addresses, through fsspec, with failures in one line.

Credentials come from the environment, as s3fs and gcsfs read them.
"""

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spicula.errors import SpiculaError, UsageError

#: Object stores that there are, and the package that reaches each.
SCHEMES: Mapping[str, str] = {"s3": "s3fs", "gs": "gcsfs"}
EXPECTED = "s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"

#: Codes of S3 with which one object is refused, and not all that is asked for (the API reference, "Error responses").
_REFUSED = ("AccessDenied", "403", "InvalidObjectState")


def is_remote(place: str) -> bool:
    """Whether a place is an address, and no folder."""
    return "://" in place


def parse(address: str) -> tuple[str, str] | None:
    """Return the scheme of an address, and its bucket and prefix as fsspec writes them: `bucket/a/b`.

    Returns:
        None where it is no address of an object store. A prefix is taken letter by letter: `%20` is no space.
    """
    parts = urlsplit(address)
    path = parts.path.strip("/")
    if (
        parts.scheme not in SCHEMES
        or not parts.netloc
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
        or not {"", ".", ".."}.isdisjoint(path.split("/") if path else ())
    ):
        return None
    return parts.scheme, f"{parts.netloc}/{path}".rstrip("/")


def place_of(where: str | Path) -> str:
    """Return a folder as an absolute path, or the address of a place in an object store, without a last slash.

    Raises:
        UsageError: it is an address of another kind, or empty.
    """
    text = str(where)
    if not text:
        raise UsageError(f"the workspace has no name; expected a folder, {EXPECTED}")
    if not is_remote(text):
        return str(Path(text).expanduser().absolute())
    found = parse(text)
    if found is None:
        raise UsageError(f"{text}: expected a folder, {EXPECTED}")
    return "://".join(found)


def bucket_of(address: str) -> str:
    """Return the address of the bucket alone, for messages that must not name an object."""
    scheme, _, path = address.partition("://")
    return f"{scheme}://{path.partition('/')[0]}"


def file_system(address: str, name: str | None = None) -> Any:
    """Return fsspec's file system for an address, with limits on what it waits for. It keeps no listings.

    Args:
        address: in an object store.
        name: what messages call it; None: the address.

    Raises:
        UsageError: the package that reaches it is missing.
        SpiculaError: there are no credentials, or odd ones.
    """
    scheme, name = address.partition(":")[0], name or address
    logging.getLogger(SCHEMES[scheme]).setLevel(logging.CRITICAL)  # what fails is reported here, in one line
    fresh = {"skip_instance_cache": True, "use_listings_cache": False}
    try:
        if scheme == "s3":
            from s3fs import S3FileSystem

            # one stream a file: several files are under way already, and parts in memory add up
            tries = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}
            return S3FileSystem(config_kwargs=tries, max_concurrency=1, **fresh)
        from gcsfs.core import GCSFileSystem

        return GCSFileSystem(**fresh)
    except ImportError:
        raise UsageError(f"{name} needs {SCHEMES[scheme]}: pip install 'spicula[archives]'") from None
    except Exception as error:  # of missing or odd credentials these libraries raise nearly anything
        raise failure("read", name, error) from None


@cache
def shared(scheme: str) -> Any:
    """Return the file system of a scheme that all reading in this process shares; see `file_system`."""
    return file_system(f"{scheme}://")


@contextmanager
def fetched(address: str, suffix: str = "") -> Iterator[Path]:
    """Yield an object's content in a temporary file, which is removed afterwards.

    It lies where `TMPDIR` says. Several threads may fetch at a time: little of an object is ever in memory.

    Args:
        address: of the object.
        suffix: of the file's name.

    Raises:
        FileNotFoundError: there is no such object.
        PermissionError: it may not be read, or lies in an archive that has to be asked for it first.
        OSError: the store failed; another attempt may succeed. No message names the object, only its bucket.
        UsageError: the package that reaches it is missing.
    """
    scheme, _, path = address.partition("://")
    files, bucket = shared(scheme), bucket_of(address)
    with tempfile.TemporaryDirectory(prefix="spicula-") as folder:
        copy = Path(folder) / f"object{suffix}"
        try:
            files.get_file(path, str(copy))
        except FileNotFoundError:
            raise FileNotFoundError(f"an object is no longer in {bucket}") from None
        except Exception as error:
            if _is_refused(error):
                raise PermissionError(
                    f"an object in {bucket} may not be read; check your rights, and its storage class"
                ) from None
            raise OSError(str(failure("read", bucket, error))) from None
        yield copy


def objects(address: str) -> Iterator[tuple[str, int, str]]:
    """Yield the objects below a prefix: their names below it, sizes in bytes, and what tells their versions apart.

    The last is another whenever the content is: in S3 the ETag, or else the time of the last change; in Google Cloud
    Storage the generation. One page is in memory at a time, where `find` of fsspec would hold all of them.

    Args:
        address: as `place_of` returns it.

    Raises:
        UsageError: there is no such bucket, or the package that reaches it is missing.
        SpiculaError: it cannot be listed.
    """
    scheme, _, path = address.partition("://")
    bucket, _, prefix = path.partition("/")
    below = f"{prefix}/" if prefix else ""
    files, pages = shared(scheme), _s3_pages if scheme == "s3" else _gs_pages
    try:
        for name, size, version in pages(files, bucket, below):
            yield name.removeprefix(below), size, version
    except FileNotFoundError:
        raise UsageError(f"there is no bucket {bucket_of(address)}; check its name, or make it first") from None
    except Exception as error:
        raise failure("listed", address, error) from None


def _s3_pages(files: Any, bucket: str, prefix: str) -> Iterator[tuple[str, int, str]]:
    """Yield the objects that the API's ListObjectsV2 names."""
    following: dict[str, str] = {}
    while True:
        page = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **following)
        for one in page.get("Contents", ()):
            yield one["Key"], int(one["Size"]), one.get("ETag") or str(one.get("LastModified", ""))
        if not page.get("IsTruncated"):
            return
        following = {"ContinuationToken": page["NextContinuationToken"]}


def _gs_pages(files: Any, bucket: str, prefix: str) -> Iterator[tuple[str, int, str]]:
    """Yield the objects that the JSON API's method objects.list names."""
    following: dict[str, str] = {}
    while True:
        page = files.call("GET", "b/{}/o", bucket, prefix=prefix, json_out=True, **following)
        for one in page.get("items", ()):
            yield one["name"], int(one["size"]), str(one.get("generation") or one.get("updated") or "")
        if not page.get("nextPageToken"):
            return
        following = {"pageToken": page["nextPageToken"]}


def failure(what: str, name: str, error: Exception) -> SpiculaError:
    """Return what to say when a place cannot be read, written or listed: one line, with the way out."""
    return SpiculaError(f"{name} cannot be {what}: {reason(error)}; check that it is reachable, and your rights")


def reason(error: Exception) -> str:
    """Return what failed, in one line and without the addresses of single objects."""
    text = re.sub(r"(https?://[^/\s\"]+)[^\s\"]*", r"\1", " ".join(str(error).split()))
    return f"{type(error).__name__}{f' ({text[:200]})' if text else ''}"


def _is_refused(error: Exception) -> bool:
    """Whether one object was refused; a key that is wrong or has expired concerns all of them."""
    if isinstance(error, PermissionError):
        answer = getattr(error.__cause__, "response", None) or {}
        return answer.get("Error", {}).get("Code") in _REFUSED
    return isinstance(error, OSError) and str(error).startswith("Forbidden:")  # so gcsfs says 403
