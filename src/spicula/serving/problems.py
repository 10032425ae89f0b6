"""The one form of errors: problem details (RFC 9457), as application/problem+json.

    {"type": "about:blank", "title": "Content Too Large", "status": 413, "code": "body-bytes",
     "detail": "the body has more than 268435456 bytes; ...", "error": "the body has ...", "request": "7f3a..."}

`code` is a word for programs: the name of the limit that was passed, or what is wrong. `error` repeats the detail,
because clients of KServe v2 read errors from there. Nothing in it comes from a DICOM header or a file name.
"""

import traceback
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """What a request is answered when it is not answered as asked.

    Args:
        status: of HTTP, 400 or more.
        code: a word for programs: small letters and hyphens.
        detail: one line for people: what was wrong, and the way out.
        headers: further headers: Retry-After, WWW-Authenticate, Allow.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers = status, code, detail, dict(headers or {})

    def as_json(self, request: str) -> dict[str, Any]:
        """Return the body of the answer.

        Args:
            request: id of the request, which stands in the log as well.
        """
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "error": self.detail,
            "request": request,
        }


def beyond(limit: str, value: int, detail: str) -> Problem:
    """Return the problem of a limit that was passed.

    Args:
        limit: its name in `limits.LIMITS`.
        value: what it is.
        detail: what was too much, with `{value}` where the limit stands.
    """
    from spicula.serving.limits import LIMITS

    status = next(one.status for one in LIMITS if one.name == limit)
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    return Problem(status, limit, detail.format(value=value), headers)


def response(problem: Problem, request: str) -> "JSONResponse":
    """Return a problem as an answer.

    Args:
        problem: the problem.
        request: id of the request.
    """
    from fastapi.responses import JSONResponse  # here alone: decoders in other servers have problems as well

    return JSONResponse(problem.as_json(request), problem.status, problem.headers, media_type=MEDIA_TYPE)


def traceback_of(error: BaseException) -> str:
    """Return where an error came from: types of errors, and places in code, in a line.

    Messages of errors are left out: those of libraries quote what they were given.
    """
    chain: list[str] = []
    one: BaseException | None = error
    while one is not None and len(chain) < 5:
        frames = traceback.extract_tb(one.__traceback__)
        places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        chain.append(f"{type(one).__name__} at {places or 'no place'}")
        one = one.__cause__ or one.__context__
    return "; after ".join(chain)
