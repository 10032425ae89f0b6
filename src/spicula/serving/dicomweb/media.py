"""What a client accepts, and bodies of several parts."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from python_multipart.multipart import parse_options_header

from spicula.serving.problems import Problem

JSON = "application/dicom+json"
DICOM = "application/dicom"
BYTES = "application/octet-stream"
RELATED = "multipart/related"
_MOST_RANGES = 32
_PIECE = 2**20

#: Media type of compressed frames by transfer syntax, PS3.18 table 8.7.3-5 and table 8.7.3-4 for video.
FRAMES = {
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (50, 51, 57, 70)), "image/jpeg"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (80, 81)), "image/jls"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (90, 91)), "image/jp2"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (92, 93)), "image/jpx"),
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (201, 202, 203)), "image/jphc"),
}


@dataclass(frozen=True)
class Range:
    """A range of media types that a client accepts.

    Attributes:
        name: "multipart/related", "*/*", in small letters.
        options: its parameters: type, transfer-syntax.
    """

    name: str
    options: dict[str, str] = field(default_factory=dict)


def accepted(header: str) -> list[Range]:
    """Return what an Accept header names, what has the highest weight first; `*/*` where it is empty.

    What has the weight q=0 is left out; of the same weight, the one that is named first comes first (RFC 9110 12.4.2).

    Raises:
        Problem: 400, it names too many.
    """
    words = _split(header)
    if len(words) > _MOST_RANGES:
        raise Problem(400, "accept", f"Accept names more than {_MOST_RANGES} media types")
    found = []
    for word in words or ["*/*"]:
        name, options = parse_options_header(word)
        given = {key.decode("latin-1").lower(): value.decode("latin-1").strip() for key, value in options.items()}
        found.append((_weight(given.get("q", "")), Range(name.decode("latin-1").lower(), given)))
    return [one for weight, one in sorted(found, key=lambda pair: -pair[0]) if weight]


def related_type(one: Range) -> str | None:
    """Return which parts a range of multipart/related takes, "*/*" for any; None where it is of another kind."""
    return one.options.get("type", "*/*").lower() if one.name in (RELATED, "multipart/*") else None


def matches(asked: str, kind: str) -> bool:
    """Whether a range such as "image/*" takes in a media type."""
    return asked in ("*/*", kind, f"{kind.partition('/')[0]}/*")


def want(header: str, *offered: str) -> str:
    """Return the media type that a client accepts first of those that there are.

    Raises:
        Problem: 406, none of them.
    """
    for one in accepted(header):
        for name in offered:
            if matches(one.name, name):
                return name
    raise not_acceptable(*offered)


def not_acceptable(*offered: str) -> Problem:
    """Return the problem of a client that accepts nothing of what there is."""
    return Problem(406, "not-acceptable", f"this comes as {' or '.join(offered)}; name that in Accept, or nothing")


def _weight(text: str) -> float:
    try:
        weight = float(text or "1")
    except ValueError:
        return 1.0
    return weight if 0 <= weight <= 1 else 1.0


def new_boundary() -> str:
    """Return what separates parts, and is in none of them but by a chance of 2 to the 122nd."""
    return uuid.uuid4().hex


async def multipart(boundary: str, parts: Sequence[tuple[str, AsyncIterator[bytes]]]) -> AsyncIterator[bytes]:
    """Yield a body of parts (RFC 2046 5.1).

    Args:
        boundary: between them.
        parts: headers of each, without its Content-Type's name; and its content, piece by piece.
    """
    for headers, content in parts:
        yield f"\r\n--{boundary}\r\n{headers}\r\n\r\n".encode()
        async for piece in content:
            yield piece
    yield f"\r\n--{boundary}--\r\n".encode()


def _split(header: str) -> list[str]:
    """Return the words between commas that are not in quotes."""
    words, word, is_quoted = [], "", False
    for letter in header:
        is_quoted ^= letter == '"'
        if letter == "," and not is_quoted:
            words.append(word)
            word = ""
        else:
            word += letter
    return [one.strip() for one in (*words, word) if one.strip()]
