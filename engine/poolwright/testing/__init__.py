"""The conformance suite for authors of plugins, and small parts for their unit tests.

In a plugin's own tests::

    from poolwright import testing
    from my_package import MyStrategy

    def test_conforms():
        testing.assert_conforms("strategy", MyStrategy)

    def test_scores_the_undecided_first():
        p = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
        cycle = testing.make_cycle(needs={"probabilities"}, given={"probabilities": p}, labeled=0)
        assert MyStrategy().score(cycle).argmax() == 1

``poolwright check NAME`` runs the same suite from the command line. Every rule is checked by itself and gives one
:class:`Finding`; a rule that depends on another that is broken is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..catalog import KINDS, Catalog
from ..errors import ConfigError, close_matches
from .datasets import DATASET_RULES
from .findings import Finding, Rule, Subject, examine
from .learners import LEARNER_RULES
from .made import MadeDataset, MadeLearner, make_cycle, make_dataset, make_learner
from .strategies import STRATEGY_RULES
from .wrappers import WRAPPER_RULES

__all__ = [
    "RULES",
    "Finding",
    "MadeDataset",
    "MadeLearner",
    "assert_conforms",
    "check_plugin",
    "make_cycle",
    "make_dataset",
    "make_learner",
]

RULES: dict[str, tuple[Rule, ...]] = {
    "strategy": STRATEGY_RULES,
    "wrapper": WRAPPER_RULES,
    "learner": LEARNER_RULES,
    "dataset": DATASET_RULES,
}
"""The rules for each kind of plugin, in the order in which they are checked."""


def check_plugin(
    kind: str,
    name_or_class: str | Callable[..., Any],
    params: Mapping[str, Any] | None = None,
    *,
    catalog: Catalog | None = None,
) -> list[Finding]:
    """Check a plugin against every rule of its kind.

    Parameters
    ----------
    kind : {"strategy", "wrapper", "learner", "dataset"}
    name_or_class : str or callable
        An installed name, or a class or factory.
    params : dict, optional
        Keyword parameters of its constructor, e.g. few epochs, or what a wrapper needs to have a criterion.
    catalog : Catalog, optional
        Where names are looked up; the environment's by default.

    Returns
    -------
    list of Finding
        One a rule, in the order of :data:`RULES`.

    Raises
    ------
    ConfigError, UnknownNameError
        There is no such kind, no such name.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of plugin {kind!r}: {close_matches(kind, KINDS)}")
    subject = Subject(kind, name_or_class, params or {}, catalog or Catalog())
    return examine(RULES[kind], subject)


def assert_conforms(
    kind: str,
    name_or_class: str | Callable[..., Any],
    params: Mapping[str, Any] | None = None,
    *,
    catalog: Catalog | None = None,
) -> None:
    """Check a plugin in a test; the parameters are those of :func:`check_plugin`.

    Raises
    ------
    AssertionError
        With a line for each rule that is broken.
    """
    findings = check_plugin(kind, name_or_class, params, catalog=catalog)
    broken = [str(finding) for finding in findings if finding.failed]
    if broken:
        raise AssertionError("\n".join([f"{kind} {name_or_class!r} breaks {len(broken)} rules:", *broken]))
