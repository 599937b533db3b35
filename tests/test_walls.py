"""The walls between the packages, as import-linter sees them, and the width of the C++ code, which has no formatter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_no_package_reaches_through_a_wall():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_line_of_csrc_is_longer_than_120_columns():
    files = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    assert files
    long = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 120
    ]
    assert not long, "\n".join(long)
