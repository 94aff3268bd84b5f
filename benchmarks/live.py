"""How long after its publication an event is in the answers of `make live`, measured from outside."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

import duckdb
import numpy as np

from benchmarks import shop
from benchmarks.build import in_millions
from benchmarks.measure import in_process
from benchmarks.report import Plot, Ratio, Section, Table
from common.streams import STREAMS
from engines.duckdb.sink import DuckDBSink
from tools import ROOT
from tools.brokers import KafkaServer, PubSubEmulator, running
from tools.warehouses.commands import Warehouse
from tools.warehouses.live import LiveProcess

PROBE_SECONDS = 0.05
"""Pause between two looks at the version that the endpoints answer from."""
SETTLE_SECONDS = 180.0
"""Maximum wait for the last events of a phase."""
QUIET_SECONDS = 20.0
"""Time without a new event after which a phase is over."""
EARLY_SECONDS = 300.0
"""Time in the first phase at which memory is compared with that at its end."""
FRESH_P95_SECONDS = (5.0, 8.0)
"""At most, by phase."""
FRESH_P99_SECONDS = 8.0
"""At most, in the first phase."""
STEPS = ("landing", "waiting", "building", "publishing", "total")


@dataclass(frozen=True, slots=True)
class Phase:
    rate: int
    """Events per second."""
    seconds: int


@dataclass(slots=True)
class Measured:
    """What was measured of a phase."""

    phase: Phase
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By stream, seconds from the publication of each event until the endpoints answer from a version that has it."""
    last_minute: list[float] = field(default_factory=list)
    """Those of the events of the last minute."""
    versions: int = 0
    produced: int = 0
    """Messages, duplicates and entities included."""
    steps: dict[str, float] = field(default_factory=dict)
    """Mean seconds per step, by the metrics of the process."""
    early_mib: int = 0
    """Resident memory after EARLY_SECONDS or half of the phase."""
    end_mib: int = 0
    early_uses: dict[str, int] = field(default_factory=dict)
    """Use to MiB that DuckDB took for it, of the resident memory."""
    end_uses: dict[str, int] = field(default_factory=dict)

    @property
    def all(self) -> list[float]:
        return [one for of_stream in self.latencies.values() for one in of_stream]


class Prober:
    """Notices each version when the endpoints answer from it, and then reads the events that are new in it."""

    def __init__(self, live: LiveProcess, published: Path, file_name: str) -> None:
        self._live = live
        self._published = published
        self._file_name = file_name
        now = datetime.now(UTC).replace(tzinfo=None)
        self._seen = dict.fromkeys(STREAMS, now)
        """By stream, the newest landed_at that was read."""
        self.found: list[tuple[str, float, float]] = []
        """Stream, publication in Unix seconds, and seconds until it was visible, of each event."""
        self.versions = 0

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Probe in a thread."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        before = self._live.version
        with closing(HTTPConnection("127.0.0.1", self._live.port, timeout=60)) as connection:
            while not stop.wait(PROBE_SECONDS):
                connection.request("GET", "/healthz")
                version = str(json.loads(connection.getresponse().read())["version"])
                if version != before:
                    self._read(version, time.time())
                    before = version
                    self.versions += 1

    def _read(self, version: str, visible_at: float) -> None:
        is_new = " or ".join(f"(stream = '{name}' and landed_at > timestamp '{at}')" for name, at in self._seen.items())
        query = f"""
            select stream, landed_at, epoch_us(published_at) / 1e6 from analytics.fct_events
            where landed_at > timestamp '{min(self._seen.values())}' and ({is_new})
        """  # noqa: S608  names of streams, and times
        try:
            with duckdb.connect(str(self._published / version / self._file_name), True, {"threads": "1"}) as connection:
                rows = connection.execute(query).fetchall()
        except duckdb.IOException:  # two more versions were published meanwhile: the next one has these events too
            return
        for stream, landed_at, published_at in rows:
            self._seen[stream] = max(self._seen[stream], landed_at)
            self.found.append((stream, published_at, visible_at - published_at))


def live(days: int, phases: Sequence[Phase], folder: Path) -> Section:
    """Run `live` on a history of this many days, while the shop publishes to Kafka and Pub/Sub."""
    with ExitStack() as opened:
        (folder / "brokers").mkdir(parents=True)
        kafka = opened.enter_context(running(KafkaServer(folder / "brokers")))
        pubsub = opened.enter_context(running(PubSubEmulator(folder / "brokers")))
        warehouse = Warehouse(
            folder / "live",
            {
                "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                "PUBSUB_PROJECT": pubsub.project,
                "PUBSUB_EMULATOR_HOST": pubsub.host,
            },
        )
        warehouse.folder.mkdir()
        _progress(f"landing and building {days} days")
        history = in_process(shop.land, warehouse.path, range(days))
        warehouse.run("dbt_project", "build")
        warehouse.run("ingest", "provision")
        warehouse.run("ingest", "emit")
        process = LiveProcess(warehouse)
        process.start()
        opened.callback(process.kill)
        _progress("starting live")
        process.wait_for(lambda: "built" in process.log_events, "the first build", 600)
        measured = [_measure(phase, process, warehouse) for phase in phases]
        process.end()
    _progress("comparing with a full refresh")
    kept, anew = warehouse.path.stat().st_size, _rebuilt(warehouse, folder / "anew")
    return _section(history, measured, warehouse, kept / anew)


def _measure(phase: Phase, process: LiveProcess, warehouse: Warehouse) -> Measured:
    measured = Measured(phase)
    prober = Prober(process, Path(f"{warehouse.path}.published"), warehouse.path.name)
    steps_before = _steps(process)
    command = ["ingest", "simulate", "--rate", str(phase.rate), "--seconds", str(phase.seconds)]
    with prober.probing():
        started = time.monotonic()
        simulator = subprocess.Popen(
            warehouse.command(*command), cwd=ROOT, env=warehouse.environment, stdout=subprocess.PIPE, text=True
        )
        try:
            while simulator.poll() is None:
                time.sleep(1)
                elapsed = time.monotonic() - started
                if not measured.early_mib and elapsed >= min(EARLY_SECONDS, phase.seconds / 2):
                    measured.early_mib = _resident_mib(process.running.pid)
                    measured.early_uses = _uses(process)
                if round(elapsed) % 30 == 0:
                    _progress(f"{phase.rate}/s, {elapsed:.0f} s: {_shown([one for *_, one in prober.found])}")
        finally:
            simulator.kill()
        output = simulator.communicate()[0]
        ended_at = time.time()
        measured.end_mib = _resident_mib(process.running.pid)
        measured.end_uses = _uses(process)
        _wait_for_rest(prober)
    if simulator.returncode:
        raise RuntimeError(f"the simulator ended with {simulator.returncode}: {output}")
    if not prober.found:
        raise RuntimeError(f"no event was in an answer {QUIET_SECONDS:.0f} s after the last: see {process.log}")
    measured.produced = int(re.sub(r"\D", "", output.rpartition("produced")[2].partition("message")[0]))
    measured.versions = prober.versions
    for stream, published_at, seconds in prober.found:
        measured.latencies[stream].append(seconds)
        if published_at > ended_at - 60:
            measured.last_minute.append(seconds)
    steps = _steps(process)
    for step in STEPS:
        (count, total), (count_before, total_before) = steps[step], steps_before[step]
        measured.steps[step] = (total - total_before) / max(1.0, count - count_before)
    # in case a later phase fails
    steps_shown = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in measured.steps.items())
    _progress(f"{phase.rate}/s: {_shown(measured.all)}; {steps_shown}; {measured.early_mib} to {measured.end_mib} MiB")
    _progress(f"{phase.rate}/s: MiB of DuckDB: {measured.early_uses}, at the end {measured.end_uses}")
    return measured


def _wait_for_rest(prober: Prober) -> None:
    """Wait until no event has come for QUIET_SECONDS, or for SETTLE_SECONDS."""
    now = time.monotonic()
    until, found, changed_at = now + SETTLE_SECONDS, len(prober.found), now
    while time.monotonic() < min(until, changed_at + QUIET_SECONDS):
        time.sleep(0.5)
        if len(prober.found) != found:
            found, changed_at = len(prober.found), time.monotonic()


def _steps(process: LiveProcess) -> dict[str, tuple[float, float]]:
    """Step to the number of messages that the process measured and the sum of their seconds, over all streams."""
    body = process.get("/metrics", process.metrics_port)[1].decode()
    totals = {step: [0.0, 0.0] for step in STEPS}
    for kind, labels, value in re.findall(r"^live_freshness_seconds_(count|sum)\{(.*?)\} (\S+)$", body, re.MULTILINE):
        step = re.search(r'step="(\w+)"', labels)
        assert step, labels  # noqa: S101
        totals[step[1]][kind == "sum"] += float(value)
    return {step: (count, total) for step, (count, total) in totals.items()}


def _uses(process: LiveProcess) -> dict[str, int]:
    body = process.get("/metrics", process.metrics_port)[1].decode()
    taken = re.findall(r'^live_memory_bytes\{use="(\w+)"\} (\S+)$', body, re.MULTILINE)
    return {use: round(float(bytes_) / 2**20) for use, bytes_ in taken if float(bytes_) >= 2**20}


def _resident_mib(pid: int) -> int:
    """Resident memory of a process, by Linux's /proc."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found  # noqa: S101
    return int(found[1]) // 1024


def _rebuilt(warehouse: Warehouse, folder: Path) -> int:
    """Build what has landed last, and everything anew in a new file; returns the size of that file in bytes.

    Raises:
        ValueError: if a mart differs.
    """
    warehouse.run("dbt_project", "build")
    anew = Warehouse(folder, warehouse.settings)
    folder.mkdir()
    DuckDBSink(anew.path).create_tables()
    with duckdb.connect(str(anew.path)) as connection:
        connection.execute(f"attach '{warehouse.path}' as live (read_only)")
        connection.execute("delete from raw.pseudonym_key")
        for table in (*STREAMS, "pseudonym_key"):
            connection.execute(f"insert into raw.{table} by name from live.raw.{table}")
    anew.run("dbt_project", "build", "--exclude-resource-type", "test", "unit_test", "snapshot")
    if differences := warehouse.differences(anew):
        raise ValueError(f"marts differ from those of a full refresh (rows only here, only there): {differences}")
    return anew.path.stat().st_size


def _section(history: int, measured: Sequence[Measured], warehouse: Warehouse, size: float) -> Section:
    whole = Table(
        [
            *("events a second", "stream", "events", "p50, s", "p95, s", "p99, s", "max, s"),
            *("p95 of the last minute, s", "messages", "versions"),
        ],
        [],
    )
    steps = Table(["events a second", *(f"{step}, s" for step in STEPS)], [])
    memory = Table(
        [
            *("events a second", "minutes", "resident MiB early", "resident MiB at the end"),
            *("of these DuckDB's cached tables", "at the end", "DuckDB's other uses", "at the end"),
        ],
        [],
    )
    ratios: list[Ratio] = []
    for one, at_most in zip(measured, FRESH_P95_SECONDS, strict=True):
        rate = f"{one.phase.rate:,}"
        whole.rows.append(
            [
                rate,
                "all",
                len(one.all),
                *_quantiles(one.all),
                _number(_p95(one.last_minute)),
                one.produced,
                one.versions,
            ]
        )
        for stream, seconds in sorted(one.latencies.items()):
            whole.rows.append([rate, stream, len(seconds), *_quantiles(seconds), "", "", ""])
        steps.rows.append([rate, *(_number(one.steps[step]) for step in STEPS)])
        tables, others = (
            [uses.get("base_table", 0) for uses in (one.early_uses, one.end_uses)],
            [sum(uses.values()) - uses.get("base_table", 0) for uses in (one.early_uses, one.end_uses)],
        )
        memory.rows.append([rate, _number(one.phase.seconds / 60), one.early_mib, one.end_mib, *tables, *others])
        ratios.append(
            Ratio(
                f"live, {rate} events a second on {in_millions(history)}: p95 seconds from event to answer",
                [_p95(one.all)],
                at_most=at_most,
            )
        )
    first = measured[0]
    ratios += [
        Ratio(
            f"live, {first.phase.rate:,} events a second: p99 seconds from event to answer",
            [float(np.quantile(first.all, 0.99))],
            at_most=FRESH_P99_SECONDS,
        ),
        Ratio("live: resident memory at the end / early", [first.end_mib / first.early_mib], at_most=1.1),
        Ratio("live: size of the warehouse / of a full refresh in a new file", [size], at_most=1.5),
    ]
    bars = {
        f"{one.phase.rate:,} a second": {step: one.steps[step] for step in STEPS if step != "total"} for one in measured
    }
    return Section(
        "Live",
        f"`make live` on a history of {history:,} messages, whose results were emitted before, while the shop publishes"
        " to Kafka and to the Pub/Sub emulator on the same cores. A prober asks the endpoints every"
        f" {PROBE_SECONDS * 1000:.0f} ms for their version, and reads the events that a new one has: seconds from the"
        " time of publication to that moment. The steps are means by the metrics of the process, of all messages."
        f" Memory is read after {EARLY_SECONDS / 60:.0f} minutes, or half of a shorter phase, and at the end."
        " Afterwards the marts equal those of a full refresh of the same messages, row for row.",
        [whole, steps, memory],
        ratios,
        [Plot("live", "From event to answer, mean per step", "seconds", bars)],
    )


def _quantiles(seconds: Sequence[float]) -> list[str]:
    return [_number(one) for one in np.quantile(seconds, (0.5, 0.95, 0.99, 1.0)).tolist()]


def _p95(seconds: Sequence[float]) -> float:
    return float(np.quantile(seconds, 0.95)) if seconds else float("nan")


def _number(value: float) -> str:
    return f"{value:.2f}"


def _shown(seconds: Sequence[float]) -> str:
    if not seconds:
        return "no events yet"
    p50, p95, p99, most = _quantiles(seconds)
    return f"{len(seconds):,} events, p50 {p50} s, p95 {p95} s, p99 {p99} s, max {most} s"


def _progress(text: str) -> None:
    print(f"live: {text}", file=sys.stderr, flush=True)
