"""A process that has imported torch, forks a child for each job, and kills it when told: a kill costs milliseconds.

The server itself computes nothing, so that a child never inherits OpenMP threads that are not there any more.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

WHERE = mmap.mmap(-1, 64)
"""Shared by server and child: what the child was about to do when it ended."""


class ForkServer:
    """The test's end: one request, one reply."""

    def __init__(self) -> None:
        import poolwright

        root = Path(__file__).parents[3]
        path = os.pathsep.join([str(Path(poolwright.__file__).parents[1]), str(root)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.helpers.forkserver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=os.environ | {"PYTHONPATH": path},
        )

    def call(
        self, job: str, *, kill_after: float | None = None, at_work: bool = False, **arguments: Any
    ) -> dict[str, Any]:
        """Run ``jobs.<job>(**arguments)`` in a child; SIGKILL it after so many seconds, wherever it is.

        ``at_work`` counts the seconds from the first phase of a cycle, else they count from the fork.

        Returns
        -------
        dict
            ``status`` (exit status, or minus the signal), ``result`` (what the job returned, if it ended), ``output``
            (what it printed), ``where`` (cycle and phase it was in), ``seconds``.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"job": job, "kill_after": kill_after, "at_work": at_work, "arguments": arguments}
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        reply: dict[str, Any] = json.loads(self._process.stdout.readline())
        return reply

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def _child(request: dict[str, Any], folder: Path) -> int:
    from . import jobs

    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        result = getattr(jobs, request["job"])(**request["arguments"])
        (folder / "result").write_text(json.dumps(result))
    except BaseException:  # noqa: BLE001 - the child must not return into the server's loop
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        WHERE[:] = bytes(len(WHERE))
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(_child(request, folder))
        limit, waiting, from_here = request["kill_after"], request["at_work"], began
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if waiting and WHERE[:].rstrip(b"\0")[-5:] not in (b"", b"start"):
                waiting, from_here = False, time.monotonic()
            if limit is not None and not waiting and time.monotonic() - from_here >= limit:
                os.kill(pid, signal.SIGKILL)
                status = os.waitpid(pid, 0)[1]
                break
            time.sleep(0.0005)
        output = folder / "output"
        code = os.waitstatus_to_exitcode(status)
        return {
            "status": code,
            "result": json.loads((folder / "result").read_text()) if code == 0 else None,
            "output": output.read_text() if output.exists() else "",
            "where": WHERE[:].rstrip(b"\0").decode(),
            "seconds": time.monotonic() - began,
        }


def main() -> None:
    """Serve requests, one a line, until the input ends."""
    from . import jobs  # noqa: F401 - imports torch and the engine once for all children

    for line in sys.stdin:
        sys.stdout.write(json.dumps(_serve(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    from tests.engine.helpers import forkserver

    forkserver.main()
