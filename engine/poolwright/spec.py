"""What an experiment is made of: data set, learner, strategies x seeds, budget. Checked when it is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .catalog import Catalog, parameters, plugin_name
from .composition import Part, Roles
from .errors import ConfigError, close_matches
from .hookspecs import HOOKS
from .rows import parse_size

RESAMPLING = ("imbalance", "long_tail", "subset", "validation", "split_seed")
"""Options of [dataset] that the engine applies to any data set."""


def reserved_keys(kind: str) -> tuple[str, ...]:
    """Return the keys that the engine keeps for itself beside the parameters of a plugin of this kind."""
    models: dict[str, type[BaseModel]] = {"strategy": StrategySpec, "learner": LearnerSpec, "dataset": DatasetSpec}
    return tuple(models[kind].model_fields) if kind in models else ("name",)


def _part(value: Any) -> Any:
    """Read a plugin with parameters: ``"name"``, ``{name = "name", b = 3}``, a class, or a Part."""
    if isinstance(value, Part):
        return value
    if isinstance(value, str) or callable(value):
        return Part(value)
    if isinstance(value, Mapping) and (isinstance(value.get("name"), str) or callable(value.get("name"))):
        return Part(value["name"], {key: v for key, v in value.items() if key != "name"})
    raise ValueError("write a plugin's name, or { name = ..., parameter = value }")


def _named(value: Any) -> Any:
    """Let a bare name, or a class of the caller's own, stand for ``{name = ...}``."""
    return {"name": value} if isinstance(value, str) or callable(value) else value


PartField = Annotated[Part, BeforeValidator(_part)]


class _Named(BaseModel):
    """A plugin and its parameters, which are all keys that the model does not know itself."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    name: str | Callable[..., Any]

    @property
    def params(self) -> dict[str, Any]:
        """The plugin's own parameters."""
        return dict(self.model_extra or {})

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; a class of the caller's own by its name."""
        return self.model_dump(exclude_none=True) | {"name": plugin_name(self.name)}


class DatasetSpec(_Named):
    """``[dataset]``: a name, its parameters, and the options of :func:`poolwright.resample.resample`."""

    imbalance: str | list[float] | None = None
    long_tail: float | None = None
    subset: int | None = None
    validation: int | float | None = None
    split_seed: int = 0


class PluginSpec(_Named):
    """A name and its parameters, nothing else."""


class LearnerSpec(_Named):
    """``[learner]``: a name, its parameters, how it starts each fit, and when it is fitted anew."""

    start: Literal["scratch", "warm", "pretrained"] = "scratch"
    refit_every: int | None = Field(default=None, ge=1)


class InitialSpec(BaseModel):
    """``[initial]``: how the first labels are chosen, and how many."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    strategy: PartField = Part("random")
    size: int = Field(default=50, ge=1)
    learner: Annotated[PluginSpec, BeforeValidator(_named)] | None = None
    hold_out: int | list[int | str] | None = None

    @pydantic.field_validator("hold_out")
    @classmethod
    def _some_classes(cls, value: int | list[int | str] | None) -> int | list[int | str] | None:
        if value is not None and (value < 1 if isinstance(value, int) else not value):
            raise ValueError("say how many classes to hold out, or which; leave it out to hold out none")
        return value

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        plain: dict[str, Any] = {"strategy": _plain_part(self.strategy), "size": self.size} | (self.model_extra or {})
        if self.learner:
            plain["learner"] = self.learner.as_dict()
        return plain | ({} if self.hold_out is None else {"hold_out": self.hold_out})

    @property
    def part(self) -> Part:
        """The strategy with the parameters given beside it."""
        return Part(self.strategy.plugin, {**self.strategy.params, **(self.model_extra or {})})


class OracleSpec(BaseModel):
    """``[oracle]``: the data set's labels, a share ``rate`` of them wrong (within superclasses if asked)."""

    model_config = ConfigDict(extra="forbid")

    rate: float = Field(default=0.0, ge=0, le=1)
    superclass: bool | list[int] = False
    seed: int | None = None


class StrategySpec(BaseModel):
    """``[[strategy]]``: a name for all roles, or one plugin a role; see :mod:`poolwright.composition`."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    label: str = ""
    name: str | Callable[..., Any] | None = None
    score: PartField | None = None
    select: PartField | None = None
    reward: PartField | None = None
    update: list[PartField] = []
    wrappers: list[PartField] = []
    batch: int | None = Field(default=None, ge=1)
    candidates: int | None = Field(default=None, ge=1)

    @pydantic.field_validator("update", "wrappers", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @pydantic.model_validator(mode="after")
    def _labelled(self) -> StrategySpec:
        if self.name is None and self.model_extra:
            key = next(iter(self.model_extra))
            known = [*type(self).model_fields]
            raise ValueError(f"unknown key {key!r} in a strategy without a name: {close_matches(key, known)}")
        if not self.label:
            parts = {role: getattr(self, role) for role in HOOKS[:3] if getattr(self, role) is not None}
            roles = [f"{role}={part.name}" for role, part in parts.items()]
            self.label = " ".join(([plugin_name(self.name)] if self.name else []) + roles) or "unnamed"
        return self

    def roles(self, wrappers: list[Part]) -> Roles:
        """Return who plays what; ``wrappers`` (of the experiment) lie outside the strategy's own."""
        return Roles(
            name=Part(self.name, self.model_extra or {}) if self.name else None,
            score=self.score,
            select=self.select,
            reward=self.reward,
            update=tuple(self.update),
            wrappers=(*wrappers, *self.wrappers),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        plain: dict[str, Any] = {"label": self.label, **(self.model_extra or {})}
        if self.name:
            plain["name"] = plugin_name(self.name)
        for role in ("score", "select", "reward"):
            if getattr(self, role) is not None:
                plain[role] = _plain_part(getattr(self, role))
        for key in ("update", "wrappers"):
            if getattr(self, key):
                plain[key] = [_plain_part(part) for part in getattr(self, key)]
        return plain | {key: getattr(self, key) for key in ("batch", "candidates") if getattr(self, key)}


def as_roles(strategy: Roles | Mapping[str, Any] | str | Callable[..., Any]) -> Roles:
    """Return who plays what, from a name, a class, or a table as in a configuration's ``[[strategy]]``.

    Raises
    ------
    ConfigError
        The table does not fit.
    """
    if isinstance(strategy, Roles):
        return strategy
    try:
        spec = StrategySpec.model_validate(_named(strategy))
    except pydantic.ValidationError as error:
        raise _explained(error) from None
    for key in ("batch", "candidates"):
        if getattr(spec, key) is not None:
            raise ConfigError(
                f"strategy: {key} = {getattr(spec, key)} has no effect here: give {key} to the session itself"
            )
    return spec.roles([])


def _plain_part(part: Part) -> dict[str, Any]:
    return {"name": part.name, **part.params}


class Experiment(BaseModel):
    """Strategies x seeds on one data set with one learner.

    Parameters
    ----------
    dataset, learner : str or dict
        A plugin's name, or its name with parameters and options.
    strategies : list
        Names, classes, or dicts with ``label``, ``name``, ``score``, ``select``, ``reward``, ``update``,
        ``wrappers``, ``batch``, ``candidates`` and parameters of ``name``.
    seeds : int or list of int
        How many, or which.
    budget : int
        Labels to buy after the initial pool.
    batch : int, optional
        Labels to ask for in a cycle; the strategy decides without it.
    initial : dict
        ``strategy`` and ``size`` of the initial pool, drawn once per seed for all strategies; ``hold_out``, how many
        classes, or which, it must not hold (a biased start).
    report_learner : str or dict, optional
        A second learner trained on the same labels, for the figures only.
    report_every : int, optional
        Measure on test data only when so many labels were paid for since the last time, at the start and at the end.
    reserve : dict of str to float
        Shares of the pool that are set aside by name, stratified, the same for all strategies of a seed.
    reserve_seed : int, optional
        Draw them by this seed in every run; by the seed of the run without it. A policy that is trained ahead needs it.
    oracle : dict
        ``rate`` of wrong labels, ``superclass`` to keep them within superclasses, ``seed`` (the run's own by default).
    wrappers : list
        Around every strategy, the first outermost.
    candidates : int, optional
        Score and select see this many unlabeled samples, drawn anew each cycle.
    threads : int, optional
        Of torch; recorded, and enforced on resume. As torch finds it by default.
    device : str
        ``"auto"`` is CUDA where there is one.
    memory_limit : str or int, optional
        What one matrix may take, e.g. ``"8GiB"``; a quarter of the machine's memory by default.
    allow_truth : bool
        Plugins may read hidden labels (upper bounds); results are marked.

    Raises
    ------
    ConfigError
        A value does not fit; its ``key`` says which.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)

    dataset: Annotated[DatasetSpec, BeforeValidator(_named)] = Field(default_factory=lambda: DatasetSpec(name="digits"))
    learner: Annotated[LearnerSpec, BeforeValidator(_named)] = Field(default_factory=lambda: LearnerSpec(name="mlp"))
    report_learner: Annotated[PluginSpec, BeforeValidator(_named)] | None = None
    report_every: int | None = Field(default=None, ge=1)
    strategies: list[Annotated[StrategySpec, BeforeValidator(_named)]] = Field(alias="strategy", min_length=1)
    seeds: int | list[int] = 3
    budget: int = Field(default=300, ge=0)
    batch: int | None = Field(default=None, ge=1)
    initial: InitialSpec = Field(default_factory=InitialSpec)
    reserve: dict[str, float] = Field(default_factory=dict)
    reserve_seed: int | None = None
    oracle: OracleSpec = Field(default_factory=OracleSpec)
    wrappers: list[PartField] = Field(default_factory=list)
    candidates: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    device: str = "auto"
    memory_limit: str | int | None = None
    allow_truth: bool = False

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except pydantic.ValidationError as error:
            raise _explained(error) from None

    @pydantic.field_validator("seeds")
    @classmethod
    def _some_seeds(cls, value: int | list[int]) -> int | list[int]:
        chosen = [value] if isinstance(value, int) else value
        if not chosen or (isinstance(value, int) and value < 1):
            raise ValueError("give at least one seed")
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError("a seed is named twice")
        return value

    @pydantic.field_validator("reserve")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        if any(not 0 < share < 1 for share in value.values()) or sum(value.values()) >= 1:
            raise ValueError("each reserve is a share between 0 and 1, and together they are less than 1")
        return value

    @pydantic.field_validator("memory_limit")
    @classmethod
    def _size(cls, value: str | int | None) -> int | None:
        try:
            return None if value is None else parse_size(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @pydantic.model_validator(mode="after")
    def _unique_labels(self) -> Experiment:
        labels = [spec.label for spec in self.strategies]
        twice = {label for label in labels if labels.count(label) > 1}
        if twice:
            raise ValueError(f"two strategies are labeled {sorted(twice)[0]!r}: give each a label of its own")
        return self

    @property
    def seed_list(self) -> list[int]:
        """The seeds, each run of a strategy having one."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as it would stand in a TOML file."""
        plain = self.model_dump(
            include={
                "seeds",
                "budget",
                "batch",
                "report_every",
                "reserve",
                "reserve_seed",
                "candidates",
                "threads",
                "device",
                "memory_limit",
                "allow_truth",
            },
            exclude_none=True,
        )
        plain["dataset"] = self.dataset.as_dict()
        plain["learner"] = self.learner.as_dict()
        plain["initial"] = self.initial.as_dict()
        plain["oracle"] = self.oracle.model_dump(exclude_none=True)
        if self.report_learner:
            plain["report_learner"] = self.report_learner.as_dict()
        if self.wrappers:
            plain["wrappers"] = [_plain_part(part) for part in self.wrappers]
        plain["strategy"] = [spec.as_dict() for spec in self.strategies]
        return plain

    def check_plugins(self, catalog: Catalog) -> None:
        """Refuse unknown names and parameters before anything runs.

        Raises
        ------
        UnknownNameError, PluginError, ConfigError
            With the key at fault.
        """
        for key, kind, plugin, params, options in self._plugins():
            try:
                factory = catalog.entry(kind, plugin).load() if isinstance(plugin, str) else plugin
            except ConfigError as error:
                error.key = (*key, "name")
                raise
            taken = parameters(factory)
            for parameter in params if taken is not None else ():
                if parameter not in taken:  # type: ignore[operator]
                    known = [*(taken or ()), *options]
                    raise ConfigError(
                        f"{plugin_name(plugin)!r} has no parameter {parameter!r}: {close_matches(parameter, known)}",
                        (*key, parameter),
                    )

    def _plugins(
        self,
    ) -> list[tuple[tuple[str | int, ...], str, str | Callable[..., Any], Mapping[str, Any], list[str]]]:
        """Return key, kind, plugin, parameters and the engine's own options of everything that is named."""
        found: list[tuple[tuple[str | int, ...], str, str | Callable[..., Any], Mapping[str, Any], list[str]]] = [
            (("dataset",), "dataset", self.dataset.name, self.dataset.params, list(RESAMPLING)),
            (("learner",), "learner", self.learner.name, self.learner.params, ["start", "refit_every"]),
            (
                ("initial",),
                "strategy",
                self.initial.strategy.plugin,
                self.initial.part.params,
                ["size", "learner", "hold_out"],
            ),
        ]
        if self.report_learner:
            found.append((("report_learner",), "learner", self.report_learner.name, self.report_learner.params, []))
        for i, part in enumerate(self.wrappers):
            found.append((("wrappers", i), "wrapper", part.plugin, part.params, []))
        for i, spec in enumerate(self.strategies):
            options = [*StrategySpec.model_fields]
            if spec.name:
                found.append((("strategy", i), "strategy", spec.name, spec.model_extra or {}, options))
            for role in ("score", "select", "reward"):
                part = getattr(spec, role)
                if part:
                    found.append((("strategy", i, role), "strategy", part.plugin, part.params, []))
            for j, part in enumerate(spec.update):
                found.append((("strategy", i, "update", j), "strategy", part.plugin, part.params, []))
            for j, part in enumerate(spec.wrappers):
                found.append((("strategy", i, "wrappers", j), "wrapper", part.plugin, part.params, []))
        return found


def known_keys() -> list[str]:
    """Return the keys of a configuration."""
    return [field.alias or name for name, field in Experiment.model_fields.items()]


def _explained(error: pydantic.ValidationError) -> ConfigError:
    """Return pydantic's first complaint as one line in our words, with the key."""
    first = error.errors()[0]
    key = tuple(part for part in first["loc"] if not (isinstance(part, str) and re.search(r"[\[\]()]", part)))
    if key and key[-1] in ("int", "str", "float", "bool"):  # which of several types pydantic tried
        key = key[:-1]
    dotted = ".".join(str(part) for part in key)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = known_keys() if len(key) == 1 else list(OracleSpec.model_fields)
        message = f"unknown key {key[-1]!r}: {close_matches(str(key[-1]), known)}"
    elif first["type"] == "missing":
        message = f"{dotted} is missing"
    elif dotted:
        message = f"{dotted} = {first.get('input')!r}: {message[0].lower()}{message[1:]}"
    more = error.error_count() - 1
    return ConfigError(message + (f" (and {more} more)" if more else ""), key)
