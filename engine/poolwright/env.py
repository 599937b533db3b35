"""Selection as a Gymnasium environment, so that any reinforcement-learning library can train a policy.

Needs Gymnasium: ``pip install 'poolwright[rl]'``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from torch import Tensor

from .catalog import Catalog
from .composition import Part
from .episodes import Decode, Episodes, Observe
from .errors import ConfigError
from .session import Session

try:
    import gymnasium
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("poolwright.env needs gymnasium: pip install 'poolwright[rl]'") from error


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
        self._episodes = Episodes(
            session, observe, decode, score=score, reward=reward, needs=needs, catalog=catalog, who="PoolEnv"
        )

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
        return self._fitting(self._episodes.reset(int(self.np_random.integers(2**31)))), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Label the batch of ``action``, fit the learner; return observation, reward, terminated, truncated and info.

        ``truncated`` is always False. Info holds ``labeled``, ``paid``, and the validation ``metrics``.
        """
        self._episodes.check_running()
        if not self.action_space.contains(action):
            raise ConfigError(f"PoolEnv: action {action!r} is not in the action space {self.action_space}")
        observation, reward, terminated = self._episodes.step(action)
        return self._fitting(observation), reward, terminated, False, self._info()

    def _fitting(self, observation: Any) -> Any:
        """Return an observation as its space has it, or refuse it."""
        if isinstance(self.observation_space, gymnasium.spaces.Box):
            plain = observation.detach().cpu().numpy() if isinstance(observation, Tensor) else observation
            observation = np.asarray(plain, dtype=self.observation_space.dtype)
        if not self.observation_space.contains(observation):
            raise ConfigError(
                f"PoolEnv: observe gave {_brief(observation)} in cycle {self._episodes.session.history[-1].index}, "
                f"which is not in the observation space {self.observation_space}"
            )
        return observation

    def _info(self) -> dict[str, Any]:
        record = self._episodes.session.history[-1]
        return {"labeled": record.labeled, "paid": record.paid, "metrics": dict(record.validation)}


def _brief(observation: Any) -> str:
    """Describe an observation in a few words."""
    if isinstance(observation, np.ndarray) and observation.size:
        return f"{observation.dtype} {observation.shape} between {observation.min():g} and {observation.max():g}"
    return repr(observation)[:80]
