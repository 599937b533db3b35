"""Selection as a Gymnasium environment, so that any reinforcement-learning library can train a policy.

Needs Gymnasium: ``pip install 'poolwright[rl]'``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
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

try:
    import gymnasium
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("poolwright.env needs gymnasium: pip install 'poolwright[rl]'") from error

Observe = Callable[[Cycle, "Tensor | None"], Any]
Decode = Callable[[Cycle, "Tensor | None", int, Any], Tensor]
POLICY = "policy"
"""What the environment's own part is called in messages, and the key of its random streams."""


class PoolEnv(gymnasium.Env[Any, Any]):
    """A run in which the agent plays the role of ``select``; an episode is a session, a step is a cycle.

    A step labels the batch that the action stands for, fits the learner, and gives what the ``reward`` hook says of
    the batch, as in a run. The episode terminates when the budget is spent, the pool is empty, or the action selects
    nothing; it never truncates (use ``gymnasium.wrappers.TimeLimit``). Hooks and functions see validation labels and
    the labels that were bought, as any plugin does; what reads hidden ones is refused.

    Parameters
    ----------
    session : callable
        Given a seed (int), makes a fresh :class:`Session` without a strategy and with an oracle: from data, or by
        ``cycle.simulate`` on labels that are already paid for.
    observe : callable
        ``observe(cycle, scores)`` -> an observation out of ``observation_space``; after the last batch as well, when
        the pool may be empty. Arrays and tensors are converted to the space's type.
    decode : callable
        ``decode(cycle, scores, budget, action)`` -> int64 ids, as :func:`~poolwright.hookspecs.select` returns them.
    observation_space, action_space : gymnasium.spaces.Space
        What the two functions give and take.
    score : str, class or Part, optional
        The plugin that gives the scores; they are None without one.
    reward : str, class or Part, optional
        The plugin that rewards; by default the change of the headline metric on validation data.
    needs : set of str
        What ``observe`` and ``decode`` read of the cycle.
    catalog : Catalog, optional
        Where names are looked up; the session's by default.

    Raises
    ------
    ConfigError
        A session, space, observation or action that does not fit.
    PluginError
        A plugin or one of the functions failed, or returned what the engine cannot use.

    Examples
    --------
    The action is the batch size, filled with the samples of the smallest margin; the state is how far the run is::

        env = PoolEnv(
            lambda seed: Session(dataset, learner="linear", initial=20, budget=200, seed=seed, oracle=oracle),
            lambda cycle, scores: [cycle.budget / 200, cycle.metrics["accuracy"]],
            lambda cycle, scores, budget, action: cycle.pool.unlabeled[scores.argsort(descending=True)][: action + 1],
            observation_space=gymnasium.spaces.Box(0, 1, (2,)),
            action_space=gymnasium.spaces.Discrete(20),
            score="margin",
        )
    """

    def __init__(
        self,
        session: Callable[[int], Session],
        observe: Observe,
        decode: Decode,
        *,
        observation_space: gymnasium.spaces.Space[Any],
        action_space: gymnasium.spaces.Space[Any],
        score: str | Callable[..., Any] | Part | None = None,
        reward: str | Callable[..., Any] | Part | None = None,
        needs: Collection[str] = (),
        catalog: Catalog | None = None,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self._make = session
        self._observe = observe
        self._decode = decode
        self._score = _part(score)
        self._reward = _part(reward)
        self._needs = frozenset(needs)
        self._catalog = catalog
        self._session: Session | None = None
        self._hooks: Composition | None = None
        self._action: Any = None
        self._scores: Tensor | None = None

    # -- Gymnasium -----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: label the initial pool, fit the learner; return the first observation and its info.

        Parameters
        ----------
        seed : int, optional
            Of this episode and those after it; the next one of the stream by default.
        options : dict, optional
            There are none.
        """
        super().reset(seed=seed)
        session = self._make(int(self.np_random.integers(2**31)))
        if not isinstance(session, Session) or session.index or session.oracle is None or session._composition:
            raise ConfigError(
                "PoolEnv: session must make a fresh Session with an oracle and without a strategy, "
                "as lambda seed: Session(dataset, learner=..., initial=..., budget=..., seed=seed, oracle=...)"
            )
        self._session = session
        self._hooks = session._compose(self._roles(), allow_truth=False, catalog=self._catalog)
        session.answer()
        session.advance()
        if session.finished:
            raise ConfigError("PoolEnv: the session is over before its first batch: give it a budget and a pool")
        self._hooks.update(self._state(), None)
        return self._look()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Label the batch of ``action``, fit the learner; return observation, reward, terminated, truncated and info.

        ``truncated`` is always False. Info holds ``labeled``, ``paid``, and the validation ``metrics``.
        """
        session, hooks = self._running()
        if not self.action_space.contains(action):
            raise ConfigError(f"PoolEnv: action {action!r} is not in the action space {self.action_space}")
        self._action = action
        state = self._state()
        ids = hooks.select(state, self._scores, session._batch_size)
        if not len(ids):
            session.finished = True
            return self._seen(), 0.0, True, False, self._info()
        session.ask(ids)
        session.answer()
        session.advance()
        state = self._state()
        reward = hooks.reward(state)
        hooks.update(state, reward)
        if len(state.released):
            raise PluginError("PoolEnv: a plugin released samples, which an environment cannot undo: leave it out")
        if reward is None:
            raise ConfigError(
                "PoolEnv: nothing rewards: give the data set validation data (validation = 0.1), or name a reward"
            )
        observation, info = self._look()
        return observation, reward, session.finished, False, info

    # -- hooks ---------------------------------------------------------------------------------------------------

    def _running(self) -> tuple[Session, Composition]:
        if self._session is None or self._hooks is None or self._session.finished:
            raise ConfigError("PoolEnv: no episode is running: call reset() first")
        return self._session, self._hooks

    def _state(self) -> CycleState:
        """Return the cycle that was fitted last, with what all plugins read in one pass over the pool."""
        assert self._session is not None
        assert self._hooks is not None
        state = self._session.view()._state
        state.needs = self._hooks.needs
        return state

    def _roles(self) -> Roles:
        """Return who plays what: the agent selects."""

        def policy() -> _Scored | _Unscored:
            return (_Scored if self._score else _Unscored)(self._chosen, self._needs)

        return Roles(score=self._score, select=Part(policy), reward=self._reward)

    def _chosen(self, cycle: Cycle, scores: Tensor | None, budget: int) -> Tensor:
        return self._decode(cycle, scores, budget, self._action)

    def _look(self) -> tuple[Any, dict[str, Any]]:
        """Score the pool, and return observation and info."""
        assert self._hooks is not None
        state = self._state()
        scoring = self._score is not None and len(state.unlabeled) > 0
        self._scores = self._hooks.score(state) if scoring else torch.empty(0) if self._score else None
        return self._seen(), self._info()

    def _seen(self) -> Any:
        """Return what ``observe`` gives, checked against its space."""
        assert self._session is not None
        state = self._state()
        cycle = Cycle(state, POLICY, "observe", self._needs)
        scores = None if self._scores is None else self._scores.clone()
        with streams.seeded(state.seed, "hook", POLICY, "observe", state.index):
            try:
                observation = self._observe(cycle, scores)
            except PoolwrightError:
                raise
            except Exception as error:
                raise PluginError(f"PoolEnv: observe failed (cycle {state.index}): {one_line(error)}") from error
        if isinstance(self.observation_space, gymnasium.spaces.Box):
            plain = observation.detach().cpu().numpy() if isinstance(observation, Tensor) else observation
            observation = np.asarray(plain, dtype=self.observation_space.dtype)
        if not self.observation_space.contains(observation):
            raise ConfigError(
                f"PoolEnv: observe gave {_brief(observation)} in cycle {state.index}, "
                f"which is not in the observation space {self.observation_space}"
            )
        return observation

    def _info(self) -> dict[str, Any]:
        assert self._session is not None
        record = self._session.history[-1]
        return {"labeled": record.labeled, "paid": record.paid, "metrics": dict(record.validation)}


class _Scored:
    """The agent in the role of ``select``, where somebody scores."""

    def __init__(self, choose: Callable[[Cycle, Tensor | None, int], Tensor], needs: frozenset[str]) -> None:
        self.needs = needs
        self._choose = choose

    @hookimpl
    def select(self, cycle: Cycle, scores: Tensor, budget: int) -> Tensor:
        return self._choose(cycle, scores, budget)


class _Unscored:
    """The agent in the role of ``select``, where nobody scores."""

    def __init__(self, choose: Callable[[Cycle, Tensor | None, int], Tensor], needs: frozenset[str]) -> None:
        self.needs = needs
        self._choose = choose

    @hookimpl
    def select(self, cycle: Cycle, budget: int) -> Tensor:
        return self._choose(cycle, None, budget)


def _part(plugin: str | Callable[..., Any] | Part | None) -> Part | None:
    return plugin if plugin is None or isinstance(plugin, Part) else Part(plugin)


def _brief(observation: Any) -> str:
    """Describe an observation in a few words."""
    if isinstance(observation, np.ndarray) and observation.size:
        return f"{observation.dtype} {observation.shape} between {observation.min():g} and {observation.max():g}"
    return repr(observation)[:80]
