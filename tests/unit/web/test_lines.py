"""Log lines of many threads: whole, each on its own line, whatever is in them."""

from __future__ import annotations

import json
import subprocess
import sys

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


def test_nobody_listening_is_no_fault():
    program = (
        "import os\nfrom bridge import logs\nlogs.configure('json')\nos.close(2)\nlogs.get('x').info('y')\nprint('on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"on\n"
