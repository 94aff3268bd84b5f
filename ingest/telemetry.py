"""Prometheus metrics of landing, served with `--metrics-port`."""

from prometheus_client import Counter, Gauge, Histogram

MESSAGES = Counter("landing_messages", "Messages landed.", ["stream"])
BYTES = Counter("landing_bytes", "Bytes fetched for landing, including keys, attributes and ids.", ["stream"])
COMMITS = Histogram(
    "landing_commit_seconds",
    "Seconds per commit to the warehouse.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
COMMIT_MESSAGES = Histogram(
    "landing_commit_messages", "New messages per commit.", buckets=(1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
)
LAG_MESSAGES = Gauge("landing_lag_messages", "Messages waiting after the last commit (Kafka only).", ["stream"])
LAG_SECONDS = Gauge(
    "landing_lag_seconds", "Age in seconds, on landing, of the newest message of the last commit.", ["stream"]
)
LOST = Counter("landing_lost_messages", "Messages that Kafka's retention deleted before they landed.", ["stream"])
PUSHES = Counter("landing_pushes", "Answered push requests, by HTTP status.", ["status"])
