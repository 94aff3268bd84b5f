"""How many pushes per second are landed: `python -m benchmarks.push [CONNECTIONS] [SECONDS]`.

Starts the push endpoint on an empty warehouse and sends it messages of 1 KB with different ids, over persistent
connections of wrk (Debian: `apt-get install wrk`). Then counts the rows in the warehouse.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engines.duckdb.sink import DuckDBSink
from tools import ROOT

WRK_SCRIPT = """
local data, number = string.rep("QUJD", 342), 0
function request()
  number = number + 1
  return wrk.format("POST", "/push", {["Content-Type"] = "application/json"},
    '{"message":{"data":"' .. data .. '","messageId":"' .. number .. '","publishTime":"2026-01-05T21:19:04.363Z",'
    .. '"attributes":{"source":"wrk"}},"subscription":"projects/p/subscriptions/clicks-landing"}')
end
"""


def main() -> None:
    connections, seconds = (*sys.argv[1:], *("64", "20")[len(sys.argv) - 1 :])
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        warehouse, script = Path(folder, "warehouse.duckdb"), Path(folder, "push.lua")
        script.write_text(WRK_SCRIPT)
        # without the settings of the user
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "WAREHOUSE_PATH": str(warehouse)}
        server = subprocess.Popen(
            [sys.executable, "-m", "ingest", "push", "--port", str(port)], cwd=folder, env=environment
        )
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                if server.poll() is not None:
                    sys.exit("the server did not start")
                time.sleep(0.1)
            command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
            subprocess.run([*command, f"http://127.0.0.1:{port}/push"], check=True)
        finally:
            server.terminate()
            server.wait(60)
        with DuckDBSink(warehouse).connection(read_only=True) as connection:
            rows = connection.sql("select count(*), count(distinct message_id) from raw.clicks").fetchall()[0]
        print(f"in the warehouse: {rows[0]:,} messages, {rows[1]:,} of them different")


if __name__ == "__main__":
    main()
