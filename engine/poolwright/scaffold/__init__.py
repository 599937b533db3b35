"""New plugins: an installable package from templates."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import jinja2

from .. import __version__
from ..catalog import KINDS, TITLES, Catalog
from ..errors import ConfigError, close_matches

_LAYOUT = {
    "pyproject.toml": "pyproject.toml.j2",
    "README.md": "README.md.j2",
    "src/{module}/__init__.py": "{kind}/plugin.py.j2",
    "tests/test_{module}.py": "{kind}/test_plugin.py.j2",
}
"""File in the package -> its template."""


def create(name: str, kind: str = "strategy", folder: str | Path = ".") -> Path:
    """Write a package with one plugin that works, its tests, and a README.

    Parameters
    ----------
    name : str
        Of plugin and distribution, such as ``my-strategy``; the module is called ``my_strategy``.
    kind : {"strategy", "wrapper", "learner", "dataset"}
    folder : path
        Where the package's own folder, called ``name``, is made.

    Returns
    -------
    Path
        The package's folder.

    Raises
    ------
    ConfigError
        The name cannot be used or is taken, the folder exists or cannot be written.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of plugin {kind!r}: {close_matches(kind, KINDS)}")
    root = Path(folder) / name
    _check_name(name, kind)
    if root.exists():
        raise ConfigError(f"{root} exists already: choose another name or folder, or remove it")
    values = {
        "name": name,
        "kind": kind,
        "title": TITLES[kind],
        "group": f"poolwright.{KINDS[kind]}",
        "module": name.replace("-", "_"),
        "class_name": _class_name(name),
        "version": __version__,
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("poolwright.scaffold"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # Python, TOML and Markdown; nothing is HTML
    )
    texts = {
        path.format(**values): templates.get_template(template.format(**values)).render(values)
        for path, template in _LAYOUT.items()
    }
    try:
        for path, text in texts.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {root}: {error}") from error
    return root


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _check_name(name: str, kind: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(
            f"{name!r} cannot name a plugin: use small letters, digits and single hyphens, beginning with a letter, "
            f"as in my-{kind}"
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or keyword.iskeyword(_class_name(name)):
        raise ConfigError(f"{name!r} cannot name a plugin: it is a word of the Python language; try my-{name}")
    if name in Catalog().names(kind):
        taken = Catalog().entry(kind, name)
        raise ConfigError(f"{taken.who} is installed already: choose another name, or uninstall that distribution")
    if module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise ConfigError(f"{name!r} cannot name a plugin: there is a Python module {module!r} already; try my-{name}")
    try:
        distribution(name)
    except PackageNotFoundError:
        return
    raise ConfigError(f"a distribution {name!r} is installed already: choose another name")
