from pathlib import Path

import pytest

from spicula import catalog
from spicula.acquire import sources
from spicula.acquire.types import Request
from spicula.errors import UsageError

FETCHABLE = [name for name, origin in sources.SOURCES.items() if not origin.closed]


def request(what, **options):
    return Request(what=what, to=Path("data"), **options)


def test_every_dataset_of_the_catalog_has_a_source_or_says_why_not():
    assert set(catalog.DATASETS) <= set(sources.SOURCES)


@pytest.mark.parametrize("name", FETCHABLE)
def test_every_source_says_terms_size_and_note(name):
    origin = sources.SOURCES[name]
    assert origin.terms
    assert origin.size
    assert origin.note
    assert origin.kinds


def test_the_page_of_sources_names_every_dataset_address_and_file():
    page = (Path(__file__).parents[2] / "docs" / "download-sources.md").read_text(encoding="utf-8")
    for name, origin in sources.SOURCES.items():
        assert f"`{name}`" in page
        wanted = [origin.tcia, origin.idc]
        if origin.files and not origin.files.page:
            wanted.append(origin.files.base + "".join(origin.files.names))
        elif origin.files:
            wanted += [origin.files.names[0], origin.files.page]
        assert [text for text in wanted if text and text not in page] == [], name


@pytest.mark.parametrize("name", FETCHABLE)
def test_passwords_go_only_to_the_host_of_the_files_and_over_https(name):
    files = sources.SOURCES[name].files
    assert files.base.endswith("/")
    if files.login:
        assert files.base.startswith(f"https://{files.login}/")
        assert files.rights
    elif files.base.startswith("http:"):
        assert "plain http" in sources.SOURCES[name].note


@pytest.mark.parametrize(
    ("what", "kind", "collection"),
    [
        ("cbis-ddsm", "tcia", "CBIS-DDSM"),
        ("cmmd", "tcia", "CMMD"),
        ("breakhis", "web", None),
        ("mini-mias", "web", None),
        ("idc-patches", "web", None),
        ("vindr-mammo", "web", None),
        ("tcia:Some Collection", "tcia", "Some Collection"),
        ("idc:nlst", "idc", "nlst"),
    ],
)
def test_what_a_request_comes_down_to(what, kind, collection):
    plan = sources.resolve(request(what))
    assert (plan.kind, plan.collection, plan.manifest) == (kind, collection, None)


def test_the_tables_come_with_the_images_from_either_archive():
    tables = {f"{kind}_case_description_{side}_set.csv" for kind in ("mass", "calc") for side in ("train", "test")}
    for source, collection in (("tcia", "CBIS-DDSM"), ("idc", "cbis_ddsm")):
        plan = sources.resolve(request("cbis-ddsm", source=source))
        assert (plan.kind, plan.collection, set(plan.files.names)) == (source, collection, tables)
    assert sources.resolve(request("cmmd", source="idc")).files.names == ("CMMD_clinicaldata_revision.xlsx",)
    assert sources.resolve(request("tcia:CMMD")).files is None


def test_a_manifest(tmp_path):
    manifest = tmp_path / "some.tcia"
    manifest.touch()
    plan = sources.resolve(request(str(manifest)))
    assert (plan.kind, plan.collection, plan.manifest) == ("tcia", None, manifest)
    with pytest.raises(UsageError, match=r"for IDC: spicula download idc:COLLECTION --series .*some.tcia"):
        sources.resolve(request(str(manifest), source="idc"))
    with pytest.raises(UsageError, match=r"no manifest other.tcia"):
        sources.resolve(request("other.tcia"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cbis", "cbis-ddsm"), ("CMMD", "cmmd"), ("vindr", "vindr-mammo"), ("minimias", "mini-mias"), ("tcia:", "tcia:")],
)
def test_an_unknown_name_gets_what_there_is_and_what_is_close(name, hint):
    with pytest.raises(UsageError) as error:
        sources.resolve(request(name))
    assert all(known in str(error.value) for known in FETCHABLE)
    assert f"did you mean {hint}?" in str(error.value) or hint == "tcia:"


@pytest.mark.parametrize("name", [name for name, origin in sources.SOURCES.items() if origin.closed])
def test_what_cannot_be_fetched_says_what_to_do_next(name):
    with pytest.raises(UsageError, match=rf"^{name} is .*spicula (index {name} --from DIR|phantom --exams)"):
        sources.resolve(request(name))


@pytest.mark.parametrize(
    ("what", "source", "message"),
    [
        ("cbis-ddsm", "web", "--from web does not have cbis-ddsm: take --from tcia or idc"),
        ("breakhis", "idc", "--from idc does not have breakhis: take --from web"),
        ("tcia:CMMD", "idc", "tcia:CMMD names its archive already"),
        ("idc:cmmd", "web", "idc:cmmd names its archive already"),
    ],
)
def test_an_archive_that_does_not_have_it(what, source, message):
    with pytest.raises(UsageError, match=message):
        sources.resolve(request(what, source=source))


@pytest.mark.parametrize(
    ("what", "options", "named"),
    [
        ("breakhis", {"patients": 3}, "--patients"),
        ("breakhis", {"patient_ids": ("x",)}, "--patient"),
        ("breakhis", {"modality": "SM"}, "--modality"),
        ("vindr-mammo", {"series_file": Path("x")}, "--series"),
        ("vindr-mammo", {"licence": "CC BY 4.0"}, "--licence"),
    ],
)
def test_a_selection_that_nothing_can_be_selected_by_is_refused(what, options, named):
    with pytest.raises(UsageError, match=f"^{named} does not go with {what}"):
        sources.resolve(request(what, **options))


def test_exams_of_vindr_mammo_can_be_selected():
    assert sources.resolve(request("vindr-mammo", patients=3, patient_ids=("x",))).files.patients_in == "images"


@pytest.mark.parametrize(
    ("patient_id", "person"),
    [
        ("Calc-Test_P_00038_LEFT_MLO_1", "P_00038"),
        ("Mass-Training_P_00001_LEFT_CC", "P_00001"),
        ("P_00038_RIGHT_CC_2.dcm", "P_00038"),
        ("D1-0001", "D1-0001"),
        ("P_00038", "P_00038"),
        ("Calc-Test_P_00038_LEFT_MLO_1x", "Calc-Test_P_00038_LEFT_MLO_1x"),
    ],
)
def test_cbis_ddsm_has_cases_where_others_have_patients(patient_id, person):
    assert sources.person(patient_id) == person


def test_the_catalog_and_the_sources_agree():
    for name, origin in sources.SOURCES.items():
        assert origin.terms in ("", catalog.DATASETS[name].terms)
        assert "\n" not in origin.way
        assert bool(origin.closed) != bool(origin.kinds), name
