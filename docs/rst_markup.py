"""Griffe extension: the reStructuredText habits of the docstrings, turned into Markdown."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|attr|data|mod):`(~?)([\w.]+)`")
LITERAL = re.compile(r"^(.*?)::\n\n((?:(?:[ ]+\S.*)?\n?)+)", re.MULTILINE)
DEFINITION = re.compile(r"^(``[^\n]+``)\n((?:[ ]{4}\S[^\n]*\n?)+)", re.MULTILINE)


def to_markdown(text: str) -> str:
    """Return a docstring with links for roles, fences for ``::`` blocks and bullets for definition lists."""
    return DEFINITION.sub(_bullet, LITERAL.sub(_fence, ROLE.sub(_link, text)))


def _link(match: re.Match[str]) -> str:
    short, path = match[1], match[2]
    shown = path.rpartition(".")[2] if short else path
    code = f"<code>{shown}</code>"
    return f'<autoref identifier="{path}" optional>{code}</autoref>' if path.startswith("poolwright") else f"`{shown}`"


def _fence(match: re.Match[str]) -> str:
    margin = re.match(r"\s*", match[1])
    indent = margin[0] if margin else ""
    inside = [line for line in match[2].splitlines() if line.strip()]
    if not inside or not all(line.startswith(indent + " ") for line in inside[:1]):
        return match[0]
    code, rest = [], match[2].splitlines()
    while rest and (not rest[0].strip() or rest[0].startswith(indent + " ")):
        code.append(rest.pop(0))
    block = textwrap.indent(textwrap.dedent("\n".join(code)).strip("\n"), indent)
    after = "\n".join(rest)
    return f"{match[1]}:\n\n{indent}```python\n{block}\n{indent}```\n\n{after}"


def _bullet(match: re.Match[str]) -> str:
    return f"- {match[1]}: {' '.join(match[2].split())}\n"


class RstMarkup(griffe.Extension):
    """Rewrite every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
