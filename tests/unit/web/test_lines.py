"""Log lines of many threads: whole, each on its own line, whatever is in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import threading
from bridge import logs
logs.configure("json")
def tell(number):
    for count in range(200):
        logs.get("test").info("line", number=number, count=count, text="a\\nb\\u2028\\udcff" + "x" * 900)
threads = [threading.Thread(target=tell, args=(n,)) for n in range(8)]
for t in threads: t.start()
for t in threads: t.join()
"""


def test_lines_of_many_threads_never_mix():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert sorted((line["number"], line["count"]) for line in told) == [(n, c) for n in range(8) for c in range(200)]


def test_a_value_that_json_does_not_have_is_shown_as_python_shows_it():
    program = "from bridge import logs\nlogs.configure('json')\nlogs.get('x').info('y', raw=b'\\xff', kinds={1})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    line = json.loads(done.stderr)
    assert (line["raw"], line["kinds"], line["part"], line["level"]) == (r"b'\xff'", "{1}", "x", "info")


def test_nobody_listening_is_no_fault():
    program = (
        "import os\nfrom bridge import logs\nlogs.configure('json')\nos.close(2)\nlogs.get('x').info('y')\nprint('on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"on\n"


FULL = """
import sys, threading, time
from bridge import logs
logs.configure("json")
began = time.monotonic()
def tell(number):
    for count in range(3_000):
        logs.get("test").info("line", number=number, count=count, text="x" * 100)
threads = [threading.Thread(target=tell, args=(n,)) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print("told", flush=True)
"""


def test_a_pipe_that_nobody_reads_keeps_nobody_waiting_and_what_it_costs_is_told():
    process = subprocess.Popen(
        [sys.executable, "-c", FULL + "sys.stdin.read(1)\nlogs.get('test').info('last')"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == b"told\n"
    told = [json.loads(process.stderr.readline())]
    while told[-1]["event"] != "log.dropped":
        told.append(json.loads(process.stderr.readline()))
    assert told[-1]["lines"] + len(told) - 1 == 12_000
    assert "lines were dropped" in told[-1]["message"]
    process.stdin.close()
    assert json.loads(process.stderr.readline())["event"] == "last"  # what came right before the end
    assert process.wait(20) == 0
    for stream in (process.stdout, process.stderr):
        stream.close()


def test_a_process_ends_though_nobody_reads_its_lines():
    with subprocess.Popen([sys.executable, "-c", FULL], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(20) == 0


def test_a_reader_that_goes_away_ends_nobody():
    with subprocess.Popen([sys.executable, "-c", FULL], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(20) == 0


def test_a_forked_process_writes_its_own_lines_once():
    program = (
        "import os\nfrom bridge import logs\nlogs.configure('json')\nlogs.get('x').info('parent')\n"
        "pid = os.fork()\nlogs.get('x').info('both', child=not pid)\n"
        "if pid: os.waitpid(pid, 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, check=True)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert sorted((line["event"], line.get("child")) for line in told) == [
        ("both", False),
        ("both", True),
        ("parent", None),
    ]


def test_no_line_goes_to_the_file_that_took_the_number_of_a_closed_stream(tmp_path):
    """Lines are written up to 20 ms later: what stood in for stderr may be closed by then, and a database opened."""
    program = (
        "import os, sys, tempfile, time\nfrom bridge import logs\nlogs.configure('json')\n"
        "sys.stderr = tempfile.TemporaryFile('w+')\nnumber = sys.stderr.fileno()\nlog = logs.get('x')\n"
        "log.info('one')\ntime.sleep(0.005)\nlog.info('two')\nsys.stderr.close()\n"
        "file = os.open('bridge.db', os.O_RDWR | os.O_CREAT)\nassert file == number\n"
        "time.sleep(0.2)\nprint(os.fstat(file).st_size)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=tmp_path, env=environ)
    assert done.stdout == b"0\n"
