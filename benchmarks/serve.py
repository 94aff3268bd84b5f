"""How many queries per second are answered: `python -m benchmarks.serve [EVENTS_PER_DAY] [CONNECTIONS] [SECONDS]`.

Builds a warehouse of seven days (143,000 events per day make a million) and sends requests for top_products with wrk
(Debian: `apt-get install wrk`), one kind of load after the other:

- cached: the same request again and again
- varied: one brand or all, one category or all, a few whole days, 10 or 20 products, like the pages of a shop: some
  requests repeat
- distinct: the same, with a start time to the second that no other request has: none repeats
- hourly: hourly_by_product of a period that no other request has, which is read from an hourly mart and the facts
- versions: distinct, while a version is published every 2 seconds, as `live` does; then the same without requests
- building: varied, during three builds of one new day each

Beside the rate stands the processor time of the server per request: other work on the machine changes it less. 2 cores
answer at most 2,000 ms divided by it per second.

Set SERVE_BENCHMARK_FOLDER to keep the warehouse for the next run.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from publishing.versions import CURRENT, VERSION
from tools import ROOT

SECONDS_PER_VERSION = 2.0

WRK_SCRIPT = """
local brands = {"all", "apple", "nike", "philips", "samsung", "xiaomi", "adidas", "sony", "lg", "bosch", "huawei"}
local categories = {"all", "electronics.clocks", "apparel.shoes", "furniture.bedroom.lamp"}
local kind, sent = os.getenv("KIND"), 0
math.randomseed(1)
function request()
  sent = sent + 1
  -- other seconds than those of `distinct`, whose answers are in memory
  local second = kind == "versions" and sent + 43200 or sent
  if kind == "cached" then return wrk.format("GET", "/v0/pipes/top_products.json?brand=nike") end
  local first, days = math.random(1, 7), math.random(1, 7)
  local time = "T00:00:00"
  if kind == "hourly" then
    return wrk.format("GET", string.format(
      "/v0/pipes/hourly_by_product.json?start_time=2026-01-%02dT%02d:%02d:%02d&end_time=2026-01-%02d&limit=20",
      first, math.floor(second / 3600) % 24, math.floor(second / 60) % 60, second % 60, first + days))
  end
  if kind == "distinct" or kind == "versions" then
    time = string.format("T%02d:%02d:%02d", math.floor(second / 3600) % 24, math.floor(second / 60) % 60, second % 60)
  end
  return wrk.format("GET", string.format(
    "/v0/pipes/top_products.json?brand=%s&category=%s&start_time=2026-01-%02d%s&end_time=2026-01-%02d&limit=%d",
    brands[math.random(#brands)], categories[math.random(#categories)], first, time, first + days,
    10 * math.random(1, 2)))
end
function done(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  print(string.format("%-9s %7.0f requests/s  p50 %6.1f ms  p99 %6.1f ms  max %6.1f ms  %d failed of %d", kind,
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, failed, summary.requests))
end
"""


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far, by Linux's /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def publishing(folder: Path) -> Iterator[list[str]]:
    """Publish the current version again every SECONDS_PER_VERSION under a new name; yields the names so far."""
    names = [(folder / CURRENT).readlink().name]
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(SECONDS_PER_VERSION):
            version = folder / f"{datetime.now(UTC):{VERSION}}"
            version.mkdir()
            for file in (folder / names[-1]).iterdir():
                (version / file.name).hardlink_to(file)
            link = folder / "next"
            link.symlink_to(version.name)
            link.replace(folder / CURRENT)
            for old in names[:-1]:
                shutil.rmtree(folder / old, ignore_errors=True)
            names.append(version.name)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield names
    finally:
        ended.set()
        thread.join()


def seconds_per_version(pid: int, versions: list[str], seconds: int) -> float:
    """Processor time of the server per version that is published while nobody asks."""
    time.sleep(SECONDS_PER_VERSION)  # the last requests of the load end
    before, published = processor_seconds(pid), len(versions)
    time.sleep(seconds)
    return (processor_seconds(pid) - before) / (len(versions) - published)


def main() -> None:
    events_per_day, connections, seconds = (*sys.argv[1:], *("143000", "8", "20")[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(os.environ.get("SERVE_BENCHMARK_FOLDER", temporary)).absolute()
        folder.mkdir(exist_ok=True)
        # without the settings of the user
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "WAREHOUSE_PATH": str(folder / "warehouse.duckdb"),
            "SPOOL_PATH": str(folder / "spool"),
            "DBT_TARGET_PATH": str(folder / "target"),
            "DBT_LOG_PATH": str(folder / "logs"),
        }

        def run(*arguments: str) -> None:
            command = [sys.executable, "-m", *arguments]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{arguments}: {done.stdout}{done.stderr}")

        def build(days: str, events: str) -> float:
            run("ingest", "simulate", "--days", days, "--events-per-day", events)
            run("ingest", "land")
            started = time.perf_counter()
            run("dbt_project", "build")
            return time.perf_counter() - started

        if not Path(f"{environment['WAREHOUSE_PATH']}.published").exists():
            print(f"built in {build('7', events_per_day):.0f} s")
        script = folder / "serve.lua"
        script.write_text(WRK_SCRIPT)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with (folder / "serve.log").open("w") as log:
            command = [sys.executable, "-m", "serve", "--port", str(port)]
            server = subprocess.Popen(command, cwd=folder, env=environment, stderr=log)

        def wrk(kind: str, duration: str) -> subprocess.Popen[str]:
            command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--latency", "-s", str(script)]
            return subprocess.Popen(
                [*command, f"http://127.0.0.1:{port}"],
                env=environment | {"KIND": kind},
                stdout=subprocess.PIPE,
                text=True,
            )

        def report(load: subprocess.Popen[str]) -> None:
            before = processor_seconds(server.pid)
            line = load.communicate()[0].splitlines()[-1]
            each = (processor_seconds(server.pid) - before) * 1e3 / int(line.split()[-1])
            print(f"{line}  {each:.2f} ms of processor each  load average {os.getloadavg()[0]:.1f}", flush=True)

        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                if server.poll() is not None:
                    sys.exit("the server did not start")
                time.sleep(0.1)
            for kind in ("cached", "varied", "distinct", "hourly"):
                report(wrk(kind, seconds))
            with publishing(Path(f"{environment['WAREHOUSE_PATH']}.published")) as versions:
                report(wrk("versions", seconds))
                each = seconds_per_version(server.pid, versions, int(seconds)) * 1e3
                print(f"without requests {each:.0f} ms of processor per version", flush=True)
            load = wrk("building", "3600")
            took = [build("1", str(int(events_per_day) // 10)) for _ in range(3)]
            load.send_signal(2)
            report(load)
            print(f"three builds beside it: {', '.join(f'{one:.0f} s' for one in took)}")
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    main()
