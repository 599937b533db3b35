"""Rules for plugins of every kind, and for everything that keeps a state."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..catalog import parameters
from ..spec import reserved_keys
from .findings import Broken, Inapplicable, Subject
from .fingerprints import attributes

MADE = "it can be imported and made"
CONSTRUCTOR = "the constructor only stores its parameters"
DOCUMENTED = "it is documented, with each parameter of the constructor"


def made(subject: Subject) -> None:
    """Import it and make an instance."""
    subject.load()
    subject.make()


def constructor(subject: Subject) -> None:
    """Each parameter becomes an attribute of the same name: the very object, whatever it is."""
    taken = known_parameters(subject)
    if not taken:
        raise Inapplicable("the constructor has no parameters")
    for name in taken:
        if name in reserved_keys(subject.kind):
            raise Broken(
                f"its parameter {name!r} is a key of the engine and would never reach it: give it another name"
            )
    instance = subject.make()
    for name, parameter in taken.items():
        given = subject.params.get(name, parameter.default)
        _held(instance, name, given, f"default {given!r}" if name not in subject.params else f"{given!r}")
    markers = markers_for(subject)
    instance = made_of_markers(subject, markers)
    for name, marker in markers.items():
        _held(instance, name, marker, "any object")


class _Marker:
    """A value that allows nothing but to be stored."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<some value of {self._name}>"


def markers_for(subject: Subject) -> dict[str, Any]:
    """Return a value for each parameter of the constructor that allows nothing but to be stored."""
    return {name: _Marker(name) for name in known_parameters(subject)}


def made_of_markers(subject: Subject, markers: Mapping[str, Any]) -> Any:
    """Make an instance of values that allow nothing but to be stored."""
    try:
        return subject.load()(**markers)
    except Exception as error:  # a stranger's constructor may raise anything
        raise Broken(
            f"it does more with its parameters than to store them ({type(error).__name__}: {error}); "
            f"check and convert them where they are used"
        ) from error


def known_parameters(subject: Subject) -> dict[str, inspect.Parameter]:
    """Return the parameters of the constructor; the rule cannot be applied where it takes any."""
    taken = parameters(subject.load())
    if taken is None:
        raise Inapplicable("the constructor takes any keyword, so its parameters are not known")
    return taken


def _held(instance: Any, name: str, value: Any, what: str) -> None:
    absent = object()
    held = attributes(instance).get(name, getattr(instance, name, absent))
    if held is absent:
        raise Broken(f"parameter {name!r} is not kept as attribute {name!r}: write self.{name} = {name}")
    if held is not value:
        raise Broken(
            f"parameter {name!r} was given {what}, but attribute {name!r} is {held!r}, not the same object: "
            f"store it as it is, copy or convert it where it is used"
        )


def documented(subject: Subject) -> None:
    """The class has a docstring of its own; each parameter stands in it, or in that of a base class."""
    factory = subject.load()
    own = inspect.cleandoc(getattr(factory, "__doc__", None) or "")
    if not own or own.startswith(f"{getattr(factory, '__name__', '')}("):  # the latter is made by dataclass
        raise Broken("it has no docstring: say what it computes, with the source, and what its parameters mean")
    lineage = [cls for cls in inspect.getmro(factory) if cls is not object] if inspect.isclass(factory) else [factory]
    texts = [text for cls in lineage for text in (cls.__doc__, getattr(cls.__init__, "__doc__", None)) if text]
    missing = [name for name in parameters(factory) or {} if not any(re.search(rf"\b{name}\b", text) for text in texts)]
    if missing:
        raise Broken(f"the docstring does not mention the parameter {missing[0]!r}")


def plain_state(instance: Any) -> dict[str, Any]:
    """Return the state of an instance as it comes back from a checkpoint.

    Raises
    ------
    Inapplicable
        It keeps none.
    Broken
        Only half of the pair is there, or the state holds more than plain data.
    """
    pair = ("state_dict", "load_state_dict")
    there = [name for name in pair if hasattr(instance, name)]
    if not there:
        raise Inapplicable("it keeps no state (it has no state_dict)")
    if len(there) == 1:
        missing = next(name for name in pair if name not in there)
        raise Broken(f"it has {there[0]} but no {missing}")
    return reloaded(instance.state_dict)


def reloaded(state_dict: Callable[[], Any]) -> dict[str, Any]:
    """Write a state as a checkpoint does, and read it again."""
    buffer = io.BytesIO()
    torch.save(state_dict(), buffer)
    buffer.seek(0)
    try:
        state: dict[str, Any] = torch.load(buffer, weights_only=True)
    except Exception as error:
        reason = re.search(r"Unsupported (?:global|class|operand).*|GLOBAL \S+", str(error))
        raise Broken(
            f"state_dict() holds more than tensors, numbers, strings, lists and dicts"
            f"{' (' + reason[0].strip() + ')' if reason else ''}"
        ) from error
    return state
