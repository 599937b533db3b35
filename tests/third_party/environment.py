"""A fresh virtual environment on top of the running one, with real installations in it."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

# Each case runs in a process of its own that is forked once torch is imported, so that it is not imported each time.
FORKING = """
import io, json, os, sys, tempfile
import matplotlib.pyplot, poolwright_plugins.learners.linear, sklearn.cluster, sklearn.datasets, torch
import poolwright.cli, poolwright.config, poolwright.experiment, poolwright.report, poolwright.screen, poolwright.testing

cases, results = json.load(sys.stdin), []
for arguments in cases:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            status = 1
            try:
                sys.argv = ["poolwright", *arguments]
                status = poolwright.cli.main() or 0
            except SystemExit as end:
                status = end.code or 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        results.append([status, out.read().decode(), err.read().decode()])
print(json.dumps(results))
"""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str


class Environment:
    """A virtual environment in ``folder`` that sees everything installed in the running one, entry points included."""

    def __init__(self, folder: Path) -> None:
        try:
            version("poolwright")
        except PackageNotFoundError:
            pytest.fail("these tests need Poolwright to be installed here: pip install -e . (its entry points are used)")
        self.folder = folder
        self.python = folder / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        own = Path(self.run("-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").out.strip())
        paths = {*sysconfig.get_paths().values()} & {*sys.path} | {*site.getsitepackages(), site.getusersitepackages()}
        folders = sorted(path for path in paths if Path(path).is_dir() and "site-packages" in path)
        # addsitedir, unlike a bare path, also follows the .pth files there: those of editable installations.
        lines = [f"import site; site.addsitedir({path!r})" for path in folders]
        (own / "running_environment.pth").write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str, cwd: Path | None = None, given: str = "") -> Outcome:
        """Run this environment's Python."""
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(
            [str(self.python), *arguments],
            cwd=cwd or self.folder,
            env=environment | {"COLUMNS": "200", "NO_COLOR": "1"},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def install(self, *folders: Path, editable: bool = False) -> None:
        """Install copies of the distributions in ``folders`` (or themselves, editable) as a user would, but offline."""
        sources = self.folder / "sources"
        chosen = []
        for folder in folders:
            if not editable:
                shutil.copytree(folder, sources / folder.name, ignore=shutil.ignore_patterns("*.egg-info", "build"))
            chosen += ["-e", str(folder)] if editable else [str(sources / folder.name)]
        done = self.run("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", *chosen)
        assert done.status == 0, done.err

    def poolwright(self, *cases: list[str]) -> list[Outcome]:
        """Run the command line once for each list of arguments, each in a process of its own."""
        done = self.run("-c", FORKING, given=json.dumps(cases))
        assert done.status == 0, done.err
        results: list[Any] = json.loads(done.out)
        return [Outcome(*result) for result in results]
