"""The table of limits: each is documented, each can be changed, each is passed by a test."""

import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service: pip install 'spicula[serve]'")

from spicula.errors import UsageError
from spicula.serving.limits import LIMITS, Limits
from spicula.serving.problems import beyond

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
SIZES = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}


def amount(limit):
    """A default as the page writes it."""
    if limit.unit == "bytes":
        for name, size in SIZES.items():
            if limit.default % size == 0:
                return f"{limit.default // size} {name}"
    return f"{limit.default:,} {limit.unit}"


def row(limit):
    """A limit as the page writes it."""
    return f"| `{limit.name}` | {amount(limit)} | {limit.help} | {limit.status or 'the connection is closed'} |"


def test_the_page_has_the_table():
    documented = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert documented == [row(limit) for limit in LIMITS]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_every_limit_is_passed_by_a_test(limit):
    """Some test makes it small and names the answer beyond it."""
    tests = [path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    changed = re.compile(rf"\b{limit.name}=\d")
    default = re.compile(rf'"{limit.name}"')  # passed as it is by default
    assert any(changed.search(text) or default.search(text) for text in tests)
    assert limit.status == 0 or any(default.search(text) for text in tests)


@pytest.mark.parametrize("limit", [one for one in LIMITS if one.status], ids=lambda limit: limit.name)
def test_what_a_request_is_told_beyond_a_limit(limit):
    problem = beyond(limit.name, 7, "more than {value}")
    assert (problem.status, problem.code, problem.detail) == (limit.status, limit.name, "more than 7")
    assert ("Retry-After" in problem.headers) == (limit.status in (429, 503))
    assert 400 <= limit.status < 500 or limit.status == 503


def test_limits_are_changed_by_name():
    limits = Limits(["queue=3", "parts=1"])
    assert (limits["queue"], limits["parts"], limits["json-depth"]) == (3, 1, 32)
    assert list(limits) == [limit.name for limit in LIMITS]


@pytest.mark.parametrize(
    "word", ["queue", "queue=", "queue=-1", "queue=0", "queue=1.5", "queue=1e3", "queue=٣", "no=1"]
)
def test_what_is_no_limit(word):
    with pytest.raises(UsageError, match=re.escape(f"--limit {word}")):
        Limits([word])
