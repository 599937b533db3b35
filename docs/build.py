"""Builds the site: to the pages in docs/ come those that are made from the code.

As a program (``make docs``) it runs ``mkdocs build --strict``; mkdocs loads it as a hook, and takes from it one page
for each built-in plugin, the reference of the hooks and that of the public names. Nothing is written but site/.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pydantic

import poolwright
from poolwright.catalog import KINDS, TITLES, Catalog, Entry
from poolwright.hookspecs import HOOKS

ROOT = Path(__file__).resolve().parent.parent

API = {
    "Running": ("experiment", "spec", "preparation", "folder", "results", "state", "selection"),
    "Policies": ("policies", "policy_training"),
    "Stepping": ("session", "episodes", "composition", "store"),
    "Hooks and what they see": ("hookspecs", "cycle", "rows"),
    "Learners, data and oracles": ("learner", "dataset", "oracle"),
    "Errors": ("errors",),
    "Kernels": ("kernels",),
    "Metrics": ("metrics",),
    "Random streams": ("streams",),
    "Testing plugins": ("testing",),
}
"""Page of the reference -> the modules whose public names stand on it."""

MORE = {
    "Running": ("config.load",),
    "Stepping": ("events.Event", "env.PoolEnv"),
}
"""What those pages also show: names that are used beside the public ones and are not exported themselves."""

MODULE_TEXTS = ("session", "learner", "dataset", "policies")
"""Modules whose own docstring opens the page."""

USE = {
    "strategy": '[[strategy]]\nname = "{name}"\n{parameters}',
    "learner": '[learner]\nname = "{name}"\n{parameters}',
    "dataset": '[dataset]\nname = "{name}"\n{parameters}',
    "wrapper": 'wrappers = [{{ name = "{name}"{inline} }}]\n',
}
EXAMPLES = {
    "stop-when": ", threshold = 0.95",
    "arrays": 'path = "my.npz"\n',
    "deit-small": 'weights = "dino_deitsmall16_pretrain.pth"\n',
    "image-folder": 'root = "my-images"\n',
    "image-mask-folder": 'root = "my-scenes"\nclasses = ["background", "cell"]\n',
}
"""What a plugin cannot be used without."""


def pages() -> dict[str, str]:
    """Return the generated pages: path below docs/ -> Markdown."""
    made = {"reference/hooks.md": hooks_page()}
    for kind, plural in KINDS.items():
        entries = built_in(kind)
        made[f"plugins/{plural}/index.md"] = index_page(kind, entries)
        made |= {f"plugins/{plural}/{entry.name}.md": plugin_page(entry) for entry in entries}
    made["plugins/learners/shared-options.md"] = shared_page()
    return made | {f"reference/{slug(title)}.md": api_page(title, modules) for title, modules in API.items()}


def built_in(kind: str) -> list[Entry]:
    """Return the plugins of one kind that come with Poolwright itself."""
    return [entry for entry in Catalog().entries(kind) if entry.distribution == "poolwright"]


def slug(title: str) -> str:
    """Return the file name of a page."""
    return re.sub(r"\W+", "-", title.lower())


# -- plugins -----------------------------------------------------------------------------------------------------


def index_page(kind: str, entries: list[Entry]) -> str:
    """Return the list of the plugins of one kind."""
    title = {"strategy": "Strategies", "learner": "Learners", "dataset": "Data sets", "wrapper": "Wrappers"}[kind]
    rows = [f"| [`{entry.name}`]({entry.name}.md) | {summary(entry.load())} |" for entry in entries]
    text = f"# {title}\n\nThe built-in ones. `poolwright plugins` lists all that are installed, yours included.\n\n"
    return text + "| name | what it does |\n|---|---|\n" + "\n".join(rows) + "\n"


def plugin_page(entry: Entry) -> str:
    """Return the page of one plugin: what it is, how it is named in a configuration, its parameters."""
    loaded = entry.load()
    signature = inspect.signature(loaded).parameters.values()
    known = documented(loaded)
    facts = [f"Kind: {TITLES[entry.kind]}. Class: `{entry.target.replace(':', '.')}`."]
    if entry.kind in ("strategy", "wrapper"):
        hooks = [hook for hook in HOOKS if hasattr(getattr(loaded, hook, None), "poolwright_impl")]
        facts.append(f"Hooks: {', '.join(f'`{hook}`' for hook in hooks)}.")
        needs = getattr(loaded, "needs", ())
        if isinstance(needs, property):
            facts.append("Its needs depend on its parameters.")
        else:
            facts.append("Needs: " + (", ".join(f"`{need}`" for need in sorted(needs)) or "nothing") + ".")
    extra = EXAMPLES.get(entry.name, "")
    use = USE[entry.kind].format(name=entry.name, parameters=extra, inline=extra)
    text = f"# {entry.name}\n\n{' '.join(facts)}\n\n```toml\n{use.strip()}\n```\n\n"
    text += f"::: {entry.target.replace(':', '.')}\n    options:\n      show_root_heading: false\n"
    text += "      show_root_toc_entry: false\n      members: false\n      show_docstring_parameters: false\n"
    text += "      show_signature: false\n      show_bases: false\n\n## Parameters\n\n"
    if not signature:
        return text + "None.\n"
    rows = []
    for parameter in signature:
        kind, meaning = known.get(parameter.name, (str(parameter.annotation), ""))
        required = parameter.default is parameter.empty
        default = "required" if required else f"`{parameter.default!r}`"
        rows.append(f"| `{parameter.name}` | {cell(kind)} | {default} | {cell(meaning)} |")
    return text + "| name | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def shared_page() -> str:
    """Return the page with the classes that the torch learners are made of."""
    text = "# Shared options\n\nWhat the learners that are torch networks have in common: all but `sklearn`.\n\n"
    for name in (
        "base.TorchLearner",
        "base.DropoutLearner",
        "classification.ClassificationLearner",
        "segmentation.SegmentationLearner",
    ):
        text += f"::: poolwright_plugins.learners.{name}\n    options:\n      members: false\n\n"
    return text


def summary(loaded: Any) -> str:
    """Return the first sentence of a docstring."""
    return cell(re.split(r"(?<=\.)\s", inspect.getdoc(loaded) or "")[0])


def documented(loaded: type) -> dict[str, tuple[str, str]]:
    """Return name -> (type, meaning) of the parameters in the docstrings of a class and its bases."""
    found: dict[str, tuple[str, str]] = {}
    for cls in reversed(inspect.getmro(loaded)):
        doc = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
        section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", doc, re.MULTILINE | re.DOTALL)
        for entry in re.finditer(
            r"^(\w[\w, ]*) : ([^\n]*)\n((?:[ ]+[^\n]*\n?|\n)*)", section[1] if section else "", re.M
        ):
            for name in entry[1].split(", "):
                found[name] = (entry[2], " ".join(entry[3].split()))
    return found


def cell(text: str) -> str:
    """Return text that can stand in a table."""
    return " ".join(re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text).split()).replace("|", "\\|")


# -- reference ---------------------------------------------------------------------------------------------------


def hooks_page() -> str:
    """Return the reference of the hooks."""
    text = "# Hooks\n\n::: poolwright.hookspecs\n    options:\n      show_root_heading: false\n      members: false\n"
    text += "      show_root_toc_entry: false\n\n"
    return text + "".join(f"::: poolwright.hookspecs.{hook}\n\n" for hook in HOOKS)


def api_page(title: str, modules: tuple[str, ...]) -> str:
    """Return the reference of the public names that live in ``modules``."""
    text = f"# {title}\n\n"
    for module in modules:
        if module in MODULE_TEXTS:
            text += f"::: poolwright.{module}\n    options:\n      show_root_heading: false\n"
            text += "      show_root_toc_entry: false\n      members: false\n\n"
    for name in poolwright.__all__:
        value = getattr(poolwright, name)
        if inspect.ismodule(value) and name in modules:
            text += f"`poolwright.{name}`\n\n::: poolwright.{name}\n    options:\n      show_root_heading: false\n"
            text += "      show_root_toc_entry: false\n"
            text += "".join(f"      {line}\n" for line in public_members(value))
            text += "\n"
        elif home(name) in modules and not inspect.ismodule(value):
            text += f"::: poolwright.{home(name)}.{name}\n"
            if inspect.isclass(value) and issubclass(value, pydantic.BaseModel):
                # To griffe, which reads the source, all fields look required.
                text += "    options:\n      show_docstring_parameters: false\n\n"
                text += "All keys, with their defaults: [Configuration](../configuration.md#the-experiment).\n"
            text += "\n"
    more = [target for target in MORE.get(title, ()) if target.rpartition(".")[2] not in poolwright.__all__]
    return text + "".join(f"::: poolwright.{target}\n\n" for target in more)


def public_members(module: Any) -> list[str]:
    """Return mkdocstrings' list of the names that a package exports; every public one of a plain module."""
    return ["members:", *(f"  - {name}" for name in module.__all__)] if hasattr(module, "__all__") else []


def home(name: str) -> str:
    """Return the module of the package in which a public name is defined."""
    module = getattr(getattr(poolwright, name), "__module__", "")
    return "hookspecs" if name in ("hookimpl", "hookspec") else module.removeprefix("poolwright.")


# -- mkdocs ------------------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Put the generated pages into the navigation."""
    made = list(pages())
    plugins = []
    for plural in KINDS.values():
        inside = [path for path in made if path.startswith(f"plugins/{plural}/")]
        plugins.append({{"datasets": "Data sets"}.get(plural, plural.capitalize()): inside})
    reference = [path for path in made if path.startswith("reference/")]
    config["nav"] += [{"Built-in plugins": plugins}, {"Reference": reference}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Hand the generated pages over."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


if __name__ == "__main__":
    from mkdocs.__main__ import cli

    sys.exit(cli(["build", "--strict", "--clean", "--config-file", str(ROOT / "mkdocs.yml")]))
