"""Prometheus metrics of the live process, served with `--metrics-port`."""

from prometheus_client import Gauge, Histogram

SECONDS = (0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 30, 60, 300)
FRESHNESS = Histogram(
    "live_freshness_seconds",
    "Seconds from the publication of a message until it is in the answers, by stream and step: landing, waiting for a"
    " build, building, publishing, and total.",
    ["stream", "step"],
    buckets=SECONDS,
)
BUILDS = Histogram("live_build_seconds", "Seconds per build.", buckets=SECONDS)
PUBLISHES = Histogram("live_publish_seconds", "Seconds per published version.", buckets=SECONDS)
FAILING = Gauge("live_failing", "1 while a model or a test fails, so that nothing is published.")
MEMORY = Gauge("live_memory_bytes", "Memory that DuckDB takes, by its use. Of tables, what is cached of them.", ["use"])
