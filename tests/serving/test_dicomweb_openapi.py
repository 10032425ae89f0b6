"""Requests made up from the OpenAPI document of DICOMweb: no error of the service, no answer that it does not name."""

import pytest

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")
pytest.importorskip("schemathesis", reason="it is in the extra peers")

import schemathesis
from exam_service import PHANTOM_SETTINGS, running, small_bundle
from hypothesis import HealthCheck, given, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]


@schemathesis.serializer("multipart/related")
def related(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def interface(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with running(folder / "ws", small_bundle(folder / "bundle", settings=PHANTOM_SETTINGS)) as service:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json").include(
            path_regex="^/dicomweb"
        )


def test_every_answer_is_one_of_those_that_are_named(interface):
    operations = [one.ok() for one in interface.get_all_operations()]
    assert len(operations) == 15
    for operation in operations:

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(checks=CHECKS)

        check()
