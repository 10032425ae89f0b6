"""What every request passes before a route sees it, and every answer on its way out.

In this order: an id of ours; who asks (token, or a page of this origin); how often; whether the service is being shut
down; how large the body says it is. While the route works: the body is counted, timed and decompressed (`bodies`). At
the end: headers that keep browsers careful, a line in the log and in the metrics, and what the request left on the disk
is removed. Nothing of a request's path, query, headers or body is written anywhere.
"""

import asyncio
import logging
import math
import secrets
import time
from contextlib import ExitStack
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spicula.serving import origins, problems
from spicula.serving.bodies import Body
from spicula.serving.problems import Problem
from spicula.serving.rates import Rates, address_key
from spicula.serving.service import Service

#: Answered without a token, and while the service is being shut down.
HEALTH = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
#: The page, which has to come before it can ask for a token, and what it is made of: nothing of it is secret.
PAGE = ("/", "/favicon.ico", "/page", "/page/")
#: Answers of any kind: what a browser may do with them. A route's own header of the same name goes first.
HEADERS = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
#: The client left before its answer: nginx's number for it, in the log and in the metrics alone.
LEFT = 499

_log = logging.getLogger("spicula.serving")
_requests = logging.getLogger("spicula.serving.requests")


class Guard:
    """The middleware around all routes.

    Args:
        app: the routes.
        service: its limits, tokens and metrics count.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._rates = Rates(service.limits["requests-a-minute"])
        self._held = {"held-bytes": 0, "spooled-bytes": 0}
        service.metrics.watch("requests_under_way", lambda: service.under_way)
        service.metrics.know("status", *(str(status.value) for status in HTTPStatus), str(LEFT))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state |= {"request_id": request, "who": "nobody", "problem": None}
        answer = _Answer(send, request, self._service)
        try:
            with ExitStack() as closing:
                state["closing"] = closing
                await self._handle(scope, receive, answer)
        finally:
            self._tell(scope, answer.status or LEFT, answer.code or state["problem"], time.perf_counter() - started)

    async def _handle(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        state = scope["state"]
        try:
            headers = Headers(scope=scope)
            state["who"] = self._admit(scope, headers)
            self._service.under_way += 1
            state["closing"].callback(self._leave)
            body = Body(scope, headers, receive, self._service.limits, self._held)
            state["closing"].callback(body.let_go)
            answer.body = state["body"] = body
            if body.is_json:
                await body.read_json()
            await self._app(scope, body.receive, answer.send)
        except Problem as problem:
            await answer.refuse(problem)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            if not self._service.is_draining:
                raise
            seconds = self._service.limits["drain-seconds"]
            await answer.refuse(problems.beyond("drain-seconds", seconds, "the service ended {value} s after SIGTERM"))
        except Exception as error:
            _log.error("request %s failed: %s", answer.request, problems.traceback_of(error))
            detail = f"something is wrong with the service; its log has request {answer.request}"
            await answer.refuse(Problem(500, "internal", detail))
        if answer.is_cut:
            raise ConnectionAbortedError(f"the answer to request {answer.request} was cut short")

    def _admit(self, scope: Scope, headers: Headers) -> str:
        """Return who asks; raise Problem where he may not."""
        path = scope["path"]
        if scope["http_version"] == "1.1" and len(headers.getlist("host")) != 1:
            raise Problem(400, "host", "a request has one Host header")
        if path in HEALTH:
            return "nobody"
        client = address_key(scope["client"][0] if scope.get("client") else "")
        is_page = path in PAGE or path.startswith("/page/")
        if not self._service.tokens:
            origins.check(scope["method"], headers, self._service.settings.host)
            who, key = "local", f"address {client}"
        elif is_page:
            who, key = "nobody", f"address {client}"
        else:
            who = self._named(headers, client)
            key = f"token {who}"
        self._count(key)
        if self._service.is_draining and path != "/metrics":
            raise Problem(503, "draining", "the service is being shut down", {"Retry-After": "5"})
        return who

    def _leave(self) -> None:
        self._service.under_way -= 1

    def _named(self, headers: Headers, client: str) -> str:
        given = headers.getlist("authorization")
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        if scheme.lower() == "bearer" and (who := self._service.tokens.who(token.strip())):
            return who
        self._count(f"address {client}")  # guesses are counted as well
        if given:
            detail, challenge = "this token is not known here", 'Bearer realm="spicula", error="invalid_token"'
        else:
            detail, challenge = "send a token: Authorization: Bearer TOKEN", 'Bearer realm="spicula"'
        raise Problem(401, "token", detail, {"WWW-Authenticate": challenge})

    def _count(self, key: str) -> None:
        if wait := self._rates.wait(key):
            value = self._service.limits["requests-a-minute"]
            problem = problems.beyond("requests-a-minute", value, "more than {value} requests a minute")
            problem.headers["Retry-After"] = str(math.ceil(wait))
            raise problem

    def _tell(self, scope: Scope, status: int, code: str | None, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "") or "none"
        state, metrics = scope["state"], self._service.metrics
        metrics.count("requests", route=route, method=scope["method"], status=str(status))
        metrics.seconds("request_seconds", seconds, route=route)
        if code:
            metrics.know("code", code)  # codes are words of ours
            metrics.count("problems", code=code)
        if _requests.isEnabledFor(logging.INFO) and (status >= 400 or route not in (*HEALTH, "/metrics")):
            _requests.info(
                "%s %s %d %.3f s %s %s%s",
                scope["method"], route, status, seconds, state["who"], state["request_id"], f" {code}" if code else "",
            )  # fmt: skip


class _Answer:
    """The answer of one request on its way out."""

    def __init__(self, send: Send, request: str, service: Service) -> None:
        self._send, self.request, self._service = send, request, service
        self.status: int | None = None
        self.code: str | None = None
        self.body: Body | None = None
        self.is_cut = False
        self._is_complete = self._is_instead = False

    async def send(self, message: Message) -> None:
        """Send a part of it, as a route's `send`."""
        if self._is_instead:
            return
        if message["type"] == "http.response.start":
            if self.body is not None and self.body.problem is not None:
                self._is_instead = True
                await self._send_problem(self.body.problem)
                return
            self.status = message["status"]
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            given += [pair for pair in HEADERS if pair[0] not in names]
            given.append((b"x-request-id", self.request.encode()))
            if self._service.is_draining:
                given.append((b"connection", b"close"))
            message = {**message, "headers": given}
        else:
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        """Send a problem; where an answer has begun, there is no other way than to cut it."""
        if self._is_complete or self._is_instead:
            return
        if self.status is not None:
            self.is_cut = True
            return
        self._is_instead = True
        await self._send_problem(problem)

    async def _send_problem(self, problem: Problem) -> None:
        self.code = problem.code
        response = problems.response(problem, self.request)
        self._is_instead, self.body = False, None
        await response({"type": "http", "method": "GET"}, _nothing, self.send)
        self._is_instead = True


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
