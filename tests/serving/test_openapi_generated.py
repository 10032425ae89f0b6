"""Requests made up from the OpenAPI document, good ones and bad ones: no error of the service, and no answer that the
document does not name.
"""

import pytest

pytest.importorskip("deltalake", reason="exams need the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")
pytest.importorskip("schemathesis", reason="it is in the extra peers")

import httpx
import pydicom
import schemathesis
from core_server import SECONDS, wait_until
from exam_service import PHANTOM_SETTINGS, small_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from predict_app import colour_bundle, with_golden
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from spicula_server import serving

from spicula.phantoms.exams import make_exams

pytestmark = pytest.mark.slow

#: Requests of each kind to each operation.
EXAMPLES = 8
TOKEN = "0123456789abcdef"
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}


@schemathesis.serializer("multipart/related")
def related(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    screening = small_bundle(folder / "screening", settings=PHANTOM_SETTINGS)
    images = with_golden(colour_bundle(folder / "images"))
    places = ["--workspace", folder / "ws", "--audit", folder / "audit"]
    with serving(screening, images.folder, *places, environment={"SPICULA_TOKENS": f"test:{TOKEN}"}) as server:
        assert server.status is None, "\n".join(server.lines)
        yield server.url


@pytest.fixture(scope="module")
def known(url, tmp_path_factory):
    """What paths can name here."""
    folder = tmp_path_factory.mktemp("exams")
    make_exams(folder, 1, size=(320, 260), jobs=1)
    views = sorted(folder.rglob("*.dcm"))
    with httpx.Client(base_url=url, headers=AUTHORIZATION, timeout=SECONDS) as client:
        files = [("file", (path.name, path.read_bytes())) for path in views]
        exam = client.post("/v1/exams", files=files).json()["id"]
        wait_until(lambda: client.get(f"/v1/exams/{exam}").json()["finished"])
        assert client.get(f"/v1/exams/{exam}").json()["status"] == "done"
        body = b"".join(b"--a\r\n\r\n" + path.read_bytes() + b"\r\n" for path in views) + b"--a--\r\n"
        sent = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=a'}
        assert client.post("/dicomweb/studies", content=body, headers=sent).status_code == 200
    header = pydicom.dcmread(views[0], stop_before_pixels=True)
    return {
        **{"exam": exam, "view": "L-CC", "model": "brightness", "version": "3", "name": "brightness", "frames": "1"},
        **{
            "attribute": "7FE00010",
            "study": header.StudyInstanceUID,
            "series": header.SeriesInstanceUID,
            "instance": header.SOPInstanceUID,
        },
    }


@pytest.fixture(scope="module")
def operations(url):
    # parameters that an operation does not have are ignored, as everywhere in HTTP: they are no bad data
    config = schemathesis.Config.from_dict({"generation": {"allow-extra-parameters": False}})
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config, headers=AUTHORIZATION)
    return [one.ok() for one in schema.get_all_operations()]


def tried(operation, mode, values):
    """Send requests; return what is wrong, and whether there are any such requests."""
    names = [name for name in CHECKS.get_all_names() if not is_beyond_schemas(operation, name)]
    sent = []

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=values or None))
    def check(case):
        sent.append(case)
        case.call_and_validate(checks=CHECKS.get_by_names(names), headers=AUTHORIZATION)

    try:
        check()
    except Unsatisfiable:
        assert mode == GenerationMode.NEGATIVE  # an operation that takes nothing, or any text: it cannot be wrong
    return len(sent)


def is_beyond_schemas(operation, check):
    """Whether a check is left out: it wants whatever fits the schemas to be accepted, and these say less than is asked.

    Files have to be images or DICOM objects, tensors those of the model, classes and models those that are there, and
    values that DICOM is searched by, UIDs, dates, and numbers of frames have rules of their own (PS3.5 section 6.2).
    """
    is_asked_more = operation.method == "post" or operation.path.startswith("/dicomweb")
    return check == "positive_data_acceptance" and is_asked_more


def test_every_answer_is_one_of_those_that_are_named(operations, known, subtests):
    assert len(operations) > 40
    assert {one.path for one in operations} >= {"/v1/predict", "/predict", "/v1/exams", "/v2", "/dicomweb/studies", "/"}
    for operation in operations:
        names = [one.name for one in operation.path_parameters]
        assert set(names) <= set(known)
        with subtests.test(operation=operation.label):
            assert tried(operation, GenerationMode.POSITIVE, {name: known[name] for name in names})
            assert tried(operation, GenerationMode.POSITIVE, {})
            tried(operation, GenerationMode.NEGATIVE, {})
