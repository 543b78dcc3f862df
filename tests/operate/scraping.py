"""What a scraper reads of a daemon: the families of its OpenMetrics, parsed as strictly as the library does."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Told(NamedTuple):
    """An answer."""

    status: int
    content_type: str
    text: str


def fetch(port: int, path: str, accept: str = OPEN_METRICS) -> Told:
    """GET it; a refusal is an answer as well."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return Told(answer.status, answer.headers["Content-Type"], answer.read().decode())
    except urllib.error.HTTPError as refused:
        with refused:
            return Told(refused.code, refused.headers["Content-Type"], refused.read().decode())


def families(text: str) -> dict[str, Metric]:
    """By name, without _total."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text: str, name: str, **labels: str) -> float:
    """Of the one sample with this name and these labels."""
    samples = [it for family in families(text).values() for it in family.samples]
    [found] = [it.value for it in samples if it.name == name and it.labels == labels]
    return float(found)


def sample_names(text: str) -> set[str]:
    """All that a query can name, also when there is no sample of it yet."""
    names: set[str] = set()
    for family in families(text).values():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
        names |= {family.name + ending for ending in endings}
    return names
