"""Metrics: one table of names and labels, and no label that nobody made known."""

from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the service: pip install 'spicula[serve]'")

from prometheus_client.parser import text_string_to_metric_families

from spicula.serving.metrics import METRICS, Metrics

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


def samples(metrics):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_counting():
    metrics = Metrics()
    metrics.know("model", "net")
    metrics.count("images", 3, model="net", outcome="answered")
    metrics.count("images", model="net", outcome="refused")
    metrics.seconds("wait_seconds", 0.02, model="net")
    level = [4]
    metrics.watch("queue", lambda: level[0])
    level[0] = 5
    found = samples(metrics)
    assert found["spicula_images_total", "answered", "net"] == 3
    assert found["spicula_images_total", "net", "refused"] == 1
    assert found["spicula_wait_seconds_sum", "net"] == 0.02
    assert found["spicula_wait_seconds_bucket", "0.025", "net"] == 1
    assert found["spicula_wait_seconds_bucket", "0.01", "net"] == 0
    assert found["spicula_queue",] == 5
    assert found["process_resident_memory_bytes",] > 0


def test_words_that_nobody_made_known_are_other():
    metrics = Metrics()
    metrics.count("images", model="DOE^JANE", outcome="1950-01-01")
    assert samples(metrics)["spicula_images_total", "other", "other"] == 1
    assert b"DOE" not in metrics.text()


def test_a_service_counts_for_itself():
    one, other = Metrics(), Metrics()
    one.count("audit_errors")
    assert samples(one)["spicula_audit_errors_total",] == 1
    assert samples(other)["spicula_audit_errors_total",] == 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_documented(metric):
    name = f"spicula_{metric.name}" + ("_total" if metric.kind == "counter" else "")
    assert f"| `{name}` | {', '.join(metric.labels)} |".replace("|  |", "| |") in PAGE.read_text()
