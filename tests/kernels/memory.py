"""Anonymous memory of a piece of code at its worst, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

HEADER = """
import threading, time
def anonymous():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
class Peak:
    def __enter__(self):
        self.start = self.worst = anonymous()
        self.stopped = False
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self
    def watch(self):
        while not self.stopped:
            self.worst = max(self.worst, anonymous())
            time.sleep(0.002)
    def __exit__(self, *error):
        self.stopped = True
        self.thread.join()
        self.bytes = self.worst - self.start
import numpy as np, torch
from poolwright import kernels
torch.set_num_threads(2)
warm = np.random.default_rng(0).standard_normal((20000, 8)).astype(np.float32)  # starts threads and loads what is lazy
"""


def run(code: str, *arguments: str) -> str:
    """Run HEADER and `code`; return what it prints."""
    source = HEADER + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
