"""Episodes of selection: what a policy is trained in, by a plugin's own learning or by a library's."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import streams
from .catalog import Catalog, one_line
from .composition import Composition, Part, Roles
from .cycle import Cycle
from .errors import ConfigError, PluginError, PoolwrightError
from .hookspecs import hookimpl
from .session import Session
from .state import CycleState

Observe = Callable[[Cycle, "Tensor | None"], Any]
Decode = Callable[[Cycle, "Tensor | None", int, Any], Tensor]
POLICY = "policy"
"""What the one who acts is called in messages, and the key of its random streams."""


class Step(NamedTuple):
    """What a step led to."""

    observation: Any
    reward: float
    terminated: bool


class Episodes:
    """Runs in which somebody acts in the role of ``select``; an episode is a session, a step is a cycle.

    A step labels the batch that the action stands for, fits the learner, and gives what the ``reward`` hook says of
    the batch, as in a run. The episode terminates when the budget is spent, the pool is empty, or the action selects
    nothing. Hooks and functions see validation labels and the labels that were bought, as any plugin does; what reads
    hidden ones is refused. :class:`poolwright.env.PoolEnv` is the same for libraries that speak Gymnasium.

    Parameters
    ----------
    session : callable
        Given a seed (int), makes a fresh :class:`Session` without a strategy and with an oracle: from data, or by
        ``cycle.simulate`` on labels that are already paid for.
    observe : callable
        ``observe(cycle, scores)`` -> whatever the policy sees; after the last batch as well, when the pool may be
        empty.
    decode : callable
        ``decode(cycle, scores, budget, action)`` -> int64 ids, as :func:`~poolwright.hookspecs.select` returns them.
    score : str, class or Part, optional
        The plugin that gives the scores; they are None without one.
    reward : str, class or Part, optional
        The plugin that rewards; by default the change of the headline metric on validation data.
    needs : set of str
        What ``observe`` and ``decode`` read of the cycle.
    catalog : Catalog, optional
        Where names are looked up; the session's by default.
    who : str
        In errors.

    Raises
    ------
    ConfigError
        A session that does not fit, or nothing that rewards.
    PluginError
        A plugin or one of the functions failed, or returned what the engine cannot use.
    """

    def __init__(
        self,
        session: Callable[[int], Session],
        observe: Observe,
        decode: Decode,
        *,
        score: str | Callable[..., Any] | Part | None = None,
        reward: str | Callable[..., Any] | Part | None = None,
        needs: Collection[str] = (),
        catalog: Catalog | None = None,
        who: str = "Episodes",
    ) -> None:
        self._make = session
        self._observe = observe
        self._decode = decode
        self._score = _part(score)
        self._reward = _part(reward)
        self._needs = frozenset(needs)
        self._catalog = catalog
        self._who = who
        self._session: Session | None = None
        self._hooks: Composition | None = None
        self._action: Any = None
        self._scores: Tensor | None = None

    @property
    def session(self) -> Session:
        """The session of the episode that was begun last."""
        return self._running(finished=True)[0]

    def reset(self, seed: int) -> Any:
        """Begin an episode: label the initial pool, fit the learner; return what ``observe`` gives."""
        session = self._make(seed)
        if not isinstance(session, Session) or session.index or session.oracle is None or session._composition:
            raise ConfigError(
                f"{self._who}: session must make a fresh Session with an oracle and without a strategy, "
                f"as lambda seed: Session(dataset, learner=..., initial=..., budget=..., seed=seed, oracle=...)"
            )
        self._session = session
        self._hooks = session._compose(self._roles(), allow_truth=False, catalog=self._catalog)
        session.answer()
        session.advance()
        if session.finished:
            raise ConfigError(f"{self._who}: the session is over before its first batch: give it a budget and a pool")
        self._hooks.update(self._state(), None)
        return self._look()

    def step(self, action: Any) -> Step:
        """Label the batch of ``action``, fit the learner, and return what came of it."""
        session, hooks = self._running()
        self._action = action
        ids = hooks.select(self._state(), self._scores, session._batch_size)
        if not len(ids):
            session.finished = True
            return Step(self._seen(), 0.0, True)
        session.ask(ids)
        session.answer()
        session.advance()
        state = self._state()
        reward = hooks.reward(state)
        hooks.update(state, reward)
        if len(state.released):
            raise PluginError(f"{self._who}: a plugin released samples, which an environment cannot undo: leave it out")
        if reward is None:
            raise ConfigError(
                f"{self._who}: nothing rewards: give the data set validation data (validation = 0.1), or name a reward"
            )
        return Step(self._look(), reward, session.finished)

    def check_running(self) -> None:
        """Refuse to go on where no episode is running."""
        self._running()

    # -- hooks ---------------------------------------------------------------------------------------------------

    def _running(self, *, finished: bool = False) -> tuple[Session, Composition]:
        if self._session is None or self._hooks is None or (self._session.finished and not finished):
            raise ConfigError(f"{self._who}: no episode is running: call reset() first")
        return self._session, self._hooks

    def _state(self) -> CycleState:
        """Return the cycle that was fitted last, with what all plugins read in one pass over the pool."""
        session, hooks = self._running(finished=True)
        state = session.view()._state
        state.needs = hooks.needs
        return state

    def _roles(self) -> Roles:
        """Return who plays what: the policy selects."""

        def policy() -> _Scored | _Unscored:
            return (_Scored if self._score else _Unscored)(self._chosen, self._needs)

        return Roles(score=self._score, select=Part(policy), reward=self._reward)

    def _chosen(self, cycle: Cycle, scores: Tensor | None, budget: int) -> Tensor:
        return self._decode(cycle, scores, budget, self._action)

    def _look(self) -> Any:
        """Score the pool, and return what is observed."""
        state = self._state()
        scoring = self._score is not None and len(state.unlabeled) > 0
        _, hooks = self._running(finished=True)
        self._scores = hooks.score(state) if scoring else torch.empty(0) if self._score else None
        return self._seen()

    def _seen(self) -> Any:
        """Return what ``observe`` gives."""
        state = self._state()
        cycle = Cycle(state, POLICY, "observe", self._needs)
        scores = None if self._scores is None else self._scores.clone()
        with streams.seeded(state.seed, "hook", POLICY, "observe", state.index):
            try:
                return self._observe(cycle, scores)
            except PoolwrightError:
                raise
            except Exception as error:
                raise PluginError(f"{self._who}: observe failed (cycle {state.index}): {one_line(error)}") from error


class _Scored:
    """Who acts, in the role of ``select``, where somebody scores."""

    def __init__(self, choose: Callable[[Cycle, Tensor | None, int], Tensor], needs: frozenset[str]) -> None:
        self.needs = needs
        self._choose = choose

    @hookimpl
    def select(self, cycle: Cycle, scores: Tensor, budget: int) -> Tensor:
        return self._choose(cycle, scores, budget)


class _Unscored:
    """Who acts, in the role of ``select``, where nobody scores."""

    def __init__(self, choose: Callable[[Cycle, Tensor | None, int], Tensor], needs: frozenset[str]) -> None:
        self.needs = needs
        self._choose = choose

    @hookimpl
    def select(self, cycle: Cycle, budget: int) -> Tensor:
        return self._choose(cycle, None, budget)


def _part(plugin: str | Callable[..., Any] | Part | None) -> Part | None:
    return plugin if plugin is None or isinstance(plugin, Part) else Part(plugin)
