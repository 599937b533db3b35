"""The documentation: it is complete, its code runs, its configurations are read, its links resolve."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer

import poolwright
from poolwright import cli, config, errors, spec
from poolwright.catalog import KINDS, Catalog, parameters
from poolwright.config import tomllib
from poolwright.hookspecs import HOOKS, NEEDS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = "# not run: "


def load_build() -> ModuleType:
    """Return docs/build.py as a module."""
    found = importlib.util.spec_from_file_location("poolwright_docs_build", DOCS / "build.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """Return the generated pages."""
    pages: dict[str, str] = load_build().pages()
    return pages


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """Return line number and code of the blocks of one language that are to be tried."""
    text = text_of(page)
    found = [(text[: m.start()].count("\n") + 2, m[2]) for m in BLOCK.finditer(text) if m[1] == language]
    return [(line, code) for line, code in found if not code.startswith(NOT_RUN)]


def pages_with(language: str) -> list[str]:
    return [page for page in PAGES if blocks(page, language)]


def named(name: str, text: str) -> bool:
    """Return whether ``name`` stands in ``text`` as code: in backticks or in a block."""
    code = " ".join([*re.findall(r"`([^`\n]+)`", text), *(m[2] for m in BLOCK.finditer(text))])
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", code) is not None


# -- complete ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook, generated):
    assert f"::: poolwright.hookspecs.{hook}\n" in generated["reference/hooks.md"]
    assert named(hook, text_of("how-to/write-a-plugin.md"))


@pytest.mark.parametrize("need", sorted(NEEDS))
def test_every_need_is_documented(need):
    assert named(need, text_of("how-to/write-a-plugin.md"))


MODELS = ("Experiment", "DatasetSpec", "LearnerSpec", "InitialSpec", "OracleSpec", "StrategySpec")


@pytest.mark.parametrize("model", MODELS)
def test_every_key_of_the_configuration_is_documented(model):
    sections = re.split(r"^## ", text_of("configuration.md"), flags=re.MULTILINE)
    heading = {
        "Experiment": "The experiment",
        "DatasetSpec": "`[dataset]`",
        "LearnerSpec": "`[learner]`",
        "InitialSpec": "`[initial]`",
        "OracleSpec": "`[oracle]`",
        "StrategySpec": "`[[strategy]]`",
    }[model]
    (section,) = [section for section in sections if section.startswith(heading)]
    rows = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))

    assert rows == {field.alias or name for name, field in getattr(spec, model).model_fields.items()}


def test_every_table_of_the_configuration_is_known_to_these_tests():
    found = {name for name, value in vars(spec).items() if inspect.isclass(value) and issubclass(value, spec.BaseModel)}

    assert {name for name in found if not name.startswith("_")} - {"BaseModel"} - {"PluginSpec"} == set(MODELS)


def commands() -> Iterator[tuple[str, Any]]:
    group: Any = typer.main.get_command(cli.app)
    yield "poolwright", group
    yield from group.commands.items()


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_every_command_and_option_is_documented(name, command):
    sections = re.split(r"^## ", text_of("command-line.md"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(f"`{name}`")]
    for parameter in command.params:
        options = [option for option in parameter.opts if option.startswith("-")]
        for option in options or [parameter.name.upper()]:
            assert named(option, section), f"{name}: {option} is missing"


@pytest.mark.parametrize("name", poolwright.__all__)
def test_every_public_name_is_documented(name, generated):
    reference = "\n".join(text for path, text in generated.items() if path.startswith("reference/"))
    shown = re.search(rf"^::: poolwright\.(\w+\.)?{name}$", reference, re.MULTILINE)

    assert shown or named(f"poolwright.{name}", text_of("index.md"))


def test_every_error_is_documented(generated):
    found = [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)]
    for name in found:
        assert f"::: poolwright.errors.{name}\n" in generated["reference/errors.md"]


def test_every_built_in_plugin_has_a_page_with_all_its_parameters(generated):
    for kind, plural in KINDS.items():
        points = [point for point in entry_points(group=f"poolwright.{plural}") if point.dist.name == "poolwright"]
        assert points
        for point in points:
            page = generated[f"plugins/{plural}/{point.name}.md"]
            assert f"({point.name}.md)" in generated[f"plugins/{plural}/index.md"]
            assert f"::: {point.value.replace(':', '.')}\n" in page
            for parameter in parameters(Catalog().entry(kind, point.name).load()) or {}:
                row = re.search(rf"^\| `{parameter}` \| .+ \| .+ \| (.+) \|$", page, re.MULTILINE)
                assert row, f"{kind} {point.name}: the meaning of {parameter} is missing"


def test_every_build_variable_is_documented():
    from poolwright.kernels import _native_build

    for variable in _native_build.VARIABLES:
        assert named(variable, text_of("kernels.md"))


# -- true --------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for line, code in blocks(page, "python"):
        # Line numbers of the page, so that a traceback points into it.
        exec(compile("\n" * (line - 1) + code, str(DOCS / page), "exec"), vars(module))


@pytest.mark.parametrize("page", pages_with("toml"))
def test_the_configurations_of_a_page_are_read(page):
    for line, code in blocks(page, "toml"):
        raw = tomllib.loads(code)
        if "project" in raw:
            continue  # a pyproject.toml
        raw.setdefault("strategy", ["random"])
        try:
            config.load(raw)
        except poolwright.PoolwrightError as error:
            pytest.fail(f"{page}, line {line}: {error}")


def test_the_configurations_on_generated_pages_are_read(generated):
    for path, text in generated.items():
        for match in BLOCK.finditer(text):
            if match[1] == "toml":
                raw = {"strategy": ["random"]} | tomllib.loads(match[2])
                assert config.load(raw), path


@pytest.mark.parametrize("page", pages_with("console"))
def test_the_commands_of_a_page_are_understood(page):
    group: Any = typer.main.get_command(cli.app)
    for _, code in blocks(page, "console"):
        for line in re.sub(r"\\\n", "", code).splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] == "poolwright" and len(words) > 1 and not words[1].startswith("-"):
                command = group.commands[words[1]]
                command.make_context(words[1], words[2:], parent=group.make_context("poolwright", [words[1]]))
            elif words and words[0] == "make":
                assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_relative_links_resolve(generated):
    texts = {page: text_of(page) for page in PAGES} | generated
    for page, text in texts.items():
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", BLOCK.sub("", text)):
            path, _, anchor = target.partition("#")
            found = (Path("/") / Path(page).parent / path).resolve().relative_to("/").as_posix() if path else page
            if (DOCS / found).suffix in (".svg", ".png"):
                assert (DOCS / found).is_file(), f"{page} shows {target}"
                continue
            assert found in texts, f"{page} links to {target}"
            headings = re.findall(r"^#+ (.+)$", texts[found], re.MULTILINE)
            assert not anchor or anchor in {slug(heading) for heading in headings}, f"{page} links to {target}"


def slug(heading: str) -> str:
    """Return the anchor that mkdocs gives a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_the_site_is_built(generated, tmp_path, monkeypatch):
    """Where the packages of the docs extra are installed: strictly, and with nothing from the network."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    for path in generated:
        html = (tmp_path / path).with_suffix(".html").read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img)\b[^>]*(?:src|href)=\"?https?:", html)
