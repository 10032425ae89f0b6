"""The application: routes and parts put together, errors brought into their one form."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from spicula import RESEARCH_NOTICE, __version__
from spicula.errors import SpiculaError
from spicula.serving import dicomweb, exam_desk, loading, openapi, problems
from spicula.serving.guard import Guard
from spicula.serving.problems import Problem
from spicula.serving.routes import dicomweb as dicomweb_routes
from spicula.serving.routes import exams, health, metrics, models, page, predict, published, v2
from spicula.serving.service import Part, Service

#: What is started in this order, and closed in the reverse one.
PARTS: tuple[Part, ...] = (loading, exam_desk, dicomweb)
#: What is answered; where two routes fit, the first one answers.
ROUTES = (health, metrics, models, predict, published, v2, exams, page, dicomweb_routes)

_log = logging.getLogger("spicula.serving")


def build(service: Service) -> FastAPI:
    """Return the application of a service.

    Its parts are started in the background, so that health is answered at once; `service.is_ready` says when all of
    them have started, `service.failure` why one has not. Without tokens it answers requests alone whose Host is this
    machine: clients of tests need the base address http://127.0.0.1.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.audit.open()
        begun: list[Part] = []
        starting = asyncio.create_task(_start(service, begun))
        yield
        service.is_draining = True
        service.is_ready = False
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        await _close(service, begun)

    app = FastAPI(
        title="Spicula",
        version=__version__,
        description=f"Predictions for breast images. {RESEARCH_NOTICE}",
        lifespan=lifespan,
        docs_url=None,  # these pages fetch scripts from elsewhere
        redoc_url=None,
        openapi_url=None,  # it would be put into words again for every request
        redirect_slashes=False,  # the Location would carry the path to whoever logs it
    )
    app.state.service = service
    for routes in ROUTES:
        app.include_router(routes.router(service))
    app.add_middleware(Guard, service=service)
    app.add_exception_handler(Problem, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    document = openapi.document(app, bool(service.tokens))
    app.openapi = lambda: document  # type: ignore[method-assign]
    app.router.routes.append(openapi.route(document))
    service.metrics.know("route", "none", openapi.PATH, *document["paths"])
    return app


async def _start(service: Service, begun: list[Part]) -> None:
    try:
        for part in PARTS:
            begun.append(part)
            await part.start(service)
    except SpiculaError as error:
        service.failure = error
    except Exception as error:
        _log.error("the service cannot start: %s", problems.traceback_of(error))
        service.failure = SpiculaError(f"the service cannot start: {type(error).__name__}; the line above says where")
    else:
        service.metrics.know("model", *service.models)
        service.is_ready = True


async def _close(service: Service, begun: list[Part]) -> None:
    for part in reversed(begun):
        try:
            await part.close(service)
        except Exception as error:
            _log.error("a part of the service did not close: %s", problems.traceback_of(error))
    service.audit.close()
    service.spool.close()


async def _answer(request: Request, error: Exception) -> Response:
    """Answer an error in the one form."""
    problem = _problem_of(error)
    request.state.problem = problem.code
    return problems.response(problem, request.state.request_id)


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        where = sorted({".".join(str(part) for part in one["loc"][:2]) for one in error.errors()})
        return Problem(422, "invalid", f"the request does not fit the interface at {', '.join(where)}")
    assert isinstance(error, HTTPException)
    codes = {404: "not-found", 405: "method-not-allowed"}
    return Problem(error.status_code, codes.get(error.status_code, "refused"), str(error.detail), error.headers)
