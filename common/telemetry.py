"""Serves Prometheus telemetry for `--metrics-port`."""

from common.errors import UserError
from common.settings import Settings


def serve_metrics(settings: Settings, port: int | None) -> None:
    """Serve telemetry on METRICS_HOST, if a port is given.

    Raises:
        UserError: when the port cannot be bound.
    """
    if port is None:
        return
    from prometheus_client import start_http_server

    try:
        start_http_server(port, settings.metrics_host)
    except OSError as error:
        raise UserError(f"--metrics-port {port} on {settings.metrics_host}: {error.strerror}") from error
