"""Prometheus metrics of landing, served with `--metrics-port`."""

from prometheus_client import Counter, Gauge, Histogram

MESSAGES = Counter("landing_messages", "Messages landed.", ["stream"])
BYTES = Counter("landing_bytes", "Bytes fetched for landing, envelope included.", ["stream"])
COMMITS = Histogram(
    "landing_commit_seconds",
    "Time of a commit to the warehouse.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
COMMIT_MESSAGES = Histogram(
    "landing_commit_messages", "Messages of a commit.", buckets=(1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
)
LAG_MESSAGES = Gauge("landing_lag_messages", "Messages that wait behind the last commit (Kafka).", ["stream"])
LAG_SECONDS = Gauge("landing_lag_seconds", "Age of the newest message of the last commit, when it landed.", ["stream"])
LOST = Counter("landing_lost_messages", "Messages that retention deleted before they were landed.", ["stream"])
PUSHES = Counter("landing_pushes", "Pushes answered, by HTTP status.", ["status"])
