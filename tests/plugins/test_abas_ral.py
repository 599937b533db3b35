"""ABAS-RAL: training in episodes, choosing batch sizes, stopping and going on; and that it learns."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from poolwright import (
    ConfigError,
    Dataset,
    DatasetOracle,
    LabelLeakError,
    Part,
    Roles,
    Samples,
    Session,
    Store,
    TensorSplit,
    testing,
)
from poolwright.testing.fingerprints import fingerprint
from poolwright_plugins.strategies.abas_ral.agent import BatchAgent
from poolwright_plugins.strategies.abas_ral.rules import largest_batch
from poolwright_plugins.strategies.abas_ral.strategy import AbasRal
from poolwright_plugins.strategies.abas_ral.training import PolicyTraining

from .planted import play, sealed

SMALL: dict[str, Any] = {"run_epochs": 2, "run_steps": 5, "episodes": 2, "warm_episodes": 2, "updates": 5}
RESERVES = {"state": torch.arange(0, 12), "warm-start": torch.arange(12, 42), "policy": torch.arange(42, 102)}


class Clouds(Dataset):
    """Three overlapping clouds of points, with validation data."""

    task = "classification"
    classes = ("a", "b", "c")

    def load(self) -> None:
        stream = torch.Generator().manual_seed(0)
        centers = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        labels = torch.arange(220) % 3
        x = centers[labels] + torch.randn(220, 2, generator=stream)
        self.pool = TensorSplit(x[:160], labels[:160])
        self.validation = TensorSplit(x[160:190], labels[160:190])
        self.test = TensorSplit(x[190:], labels[190:])


class Means:
    """Classes by the nearest mean of the labeled samples."""

    provides = frozenset({"probabilities"})
    means: Tensor

    def fit(self, labeled: Samples, *, unlabeled: Samples, start: str, generator: torch.Generator) -> None:
        x, y = labeled.inputs(torch.arange(len(labeled))), torch.as_tensor(labeled.labels)
        self.means = torch.stack([x[y == c].mean(0) if (y == c).any() else torch.full((2,), 9.0) for c in range(3)])

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"probabilities": (-torch.cdist(inputs, self.means).square()).softmax(1)}

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.means = state["means"]


def session(
    params: dict[str, Any] | None = None, *, kind: Any = "abas-ral", seal: bool = False, **given: Any
) -> Session:
    """Return a session on the clouds with twelve labels, the first of them answered."""
    dataset = Clouds()
    dataset.load()
    if seal:
        dataset = sealed(dataset)
    settings: dict[str, Any] = {"initial": torch.arange(110, 122), "budget": 30, "report": False, "learner": Means}
    one = Session(
        dataset,
        strategy=Roles(name=Part(kind, SMALL | (params or {}))),
        oracle=DatasetOracle(dataset.pool),
        **(settings | given),
    )
    if one.index == 0:
        one.answer()
    return one


def instance(run: Session) -> Any:
    assert run._composition is not None
    (member,) = [m for m in run._composition.members if isinstance(m.instance, AbasRal)]
    return member.instance


def training(run: Session) -> PolicyTraining:
    found: PolicyTraining = instance(run)._training
    return found


# -- in a run ----------------------------------------------------------------------------------------------------


def test_without_a_policy_one_is_trained_on_the_labels_there_are_and_it_says_so(caplog: Any) -> None:
    run = session()
    run.advance()
    assert "abas-ral was given no policy: it trains one on the 12 labels that it has" in caplog.text
    assert training(run).finished
    assert instance(run)._trained_on.tolist() == list(range(110, 122))
    assert len(run.history[0].logs["abas-ral.update.td_error"]) == 2
    play(run)
    assert [name for record in run.history[1:] for name in record.logs if ".update." in name] == []


def test_on_reserves_it_learns_from_them_alone_and_reads_the_reserved_state() -> None:
    run = session(reserve=RESERVES)
    run.advance()
    assert instance(run)._trained_on.tolist() == list(range(102))
    agent = training(run).agent
    assert agent is not None
    assert agent.n_state == 12


def test_the_batch_is_the_size_of_the_highest_value_filled_with_the_smallest_margins() -> None:
    run = session({"finish": False}, reserve=RESERVES)
    asked = run.advance()
    assert asked is not None
    agent = training(run).agent
    assert agent is not None
    unlabeled = torch.cat([torch.arange(102, 110), torch.arange(122, 160)])
    p = Means.predict(run.training.learner, run.dataset.pool.inputs(unlabeled))["probabilities"]  # type: ignore[arg-type]
    best = p.topk(2, dim=1).values
    state = Means.predict(run.training.learner, run.dataset.pool.inputs(RESERVES["state"]))["probabilities"]  # type: ignore[arg-type]
    two = state.topk(2, dim=1).values
    k = agent.best((two[:, 0] - two[:, 1]).sort().values, largest_batch(46))
    assert asked.tolist() == unlabeled[(best[:, 0] - best[:, 1]).argsort(stable=True)][:k].tolist()


def test_batches_are_between_one_and_a_tenth_of_the_unlabeled() -> None:
    run = play(session({"finish": False}, seed=3))
    for record in run.history[:-1]:
        assert 1 <= len(record.selected) <= largest_batch(160 - record.labeled)
    assert run.pool.spent == 30


def test_rewards_of_a_run_are_precision_per_label_and_telescope() -> None:
    run = play(session({"finish": False}))
    shares = [record.validation["precision"] / record.labeled for record in run.history]
    assert [record.reward for record in run.history[1:]] == pytest.approx(
        [now - before for before, now in itertools.pairwise(shares)]
    )
    assert sum(record.reward or 0 for record in run.history) == pytest.approx(shares[-1] - shares[0])


@pytest.mark.parametrize("finish", [True, False])
def test_the_run_ends_at_the_targets_unless_told_otherwise(finish: bool) -> None:
    run = session({"finish": finish}, reserve=RESERVES)
    run.advance()
    targets = training(run).targets
    assert targets is not None
    run.answer()
    play(run)
    over = [targets.reached(record.validation["precision"], record.labeled / 58, "either") for record in run.history]
    if finish:
        assert over.index(True) == len(over) - 1 < 30
    else:
        assert run.pool.spent == 30
        assert any(over[:-1])


def test_targets_of_the_labels_that_the_run_begins_with_end_nothing() -> None:
    run = play(session())
    assert run.pool.spent == 30


def test_another_plugin_may_say_which_samples_fill_the_batch() -> None:
    dataset = Clouds()
    dataset.load()
    roles = Roles(score=Part("random"), select=Part("abas-ral", SMALL))
    run = Session(
        dataset, strategy=roles, learner=Means, initial=12, budget=10, oracle=DatasetOracle(dataset.pool), report=False
    )
    run.answer()
    play(run)
    assert run._composition is not None
    assert run._composition.owners == {"score": "random", "select": "abas-ral", "reward": "abas-ral"}
    assert run.pool.spent == 10


# -- truth -------------------------------------------------------------------------------------------------------


def test_no_label_of_test_data_is_read() -> None:
    assert play(session({"finish": False}, seal=True, reserve=RESERVES)).pool.spent == 30


def test_a_planted_leak_of_test_labels_is_caught() -> None:
    class Leaky(AbasRal):
        @staticmethod
        def _state(cycle: Any) -> Tensor:
            return cycle._state.dataset.test.labels(torch.arange(5)).float() / 3

    run = session(kind=Leaky, seal=True, reserve=RESERVES)
    with pytest.raises(LabelLeakError, match=r"hidden in a simulated session|read labels of test data"):
        run.advance()


# -- stopping and going on ---------------------------------------------------------------------------------------


def test_killed_while_its_policy_is_trained_a_run_ends_as_if_it_never_was(tmp_path: Any, monkeypatch: Any) -> None:
    whole = play(session({"finish": False}, seed=5))
    learn, calls = BatchAgent.learn, []

    def dying(agent: BatchAgent, *given: Any) -> float:
        calls.append(learn(agent, *given))
        if len(calls) in (1, 3):
            raise KeyboardInterrupt
        return calls[-1]

    monkeypatch.setattr(BatchAgent, "learn", dying)
    while True:
        store = Store(tmp_path)
        try:
            resumed = play(session({"finish": False}, seed=5, store=store))
            break
        except KeyboardInterrupt:
            continue
        finally:
            store.close()
    assert len(calls) > 4
    assert [r.selected for r in resumed.history] == [r.selected for r in whole.history]
    assert [r.streams for r in resumed.history] == [r.streams for r in whole.history]
    assert fingerprint(instance(resumed).state_dict()) == fingerprint(instance(whole).state_dict())


def cycle_of_a_run() -> Any:
    """Return a cycle to train a policy ahead with."""
    dataset = Clouds()
    dataset.load()
    one = Session(
        dataset,
        learner=Means,
        initial=torch.arange(110, 122),
        budget=30,
        reserve=RESERVES,
        report=False,
        oracle=DatasetOracle(dataset.pool),
    )
    one.answer()
    one.advance()
    return one.view(AbasRal.needs, name="abas-ral")


AHEAD: dict[str, Any] = {"epochs": 3, "steps": 4, "episodes": 2, "warm_episodes": 2, "updates": 5}


@pytest.mark.parametrize("left_after", [1, 2, 3])
def test_a_training_that_is_left_after_any_piece_goes_on_to_the_same_policy(left_after: int) -> None:
    whole = AbasRal(**AHEAD)
    assert list(whole.train_policy(cycle_of_a_run())) == [0.25, 0.5, 0.75, 1.0]
    left = AbasRal(**AHEAD)
    pieces = left.train_policy(cycle_of_a_run())
    for _ in range(left_after):
        next(pieces)
    again = AbasRal(**AHEAD)
    again.load_state_dict(left.state_dict())
    assert list(again.train_policy(cycle_of_a_run())) == [0.25, 0.5, 0.75, 1.0][left_after:]
    assert fingerprint(again.state_dict()) == fingerprint(whole.state_dict())


def test_a_saved_state_does_not_change_while_the_training_goes_on() -> None:
    strategy = AbasRal(**AHEAD)
    pieces = strategy.train_policy(cycle_of_a_run())
    next(pieces)
    next(pieces)
    state = strategy.state_dict()
    before = fingerprint(state)
    next(pieces)
    assert fingerprint(state) == before


def test_a_training_that_was_left_in_the_run_is_no_policy(monkeypatch: Any) -> None:
    def interrupted(agent: BatchAgent, *given: Any) -> float:
        raise KeyboardInterrupt

    run = session()
    with monkeypatch.context() as patched:
        patched.setattr(BatchAgent, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.advance()
    assert instance(run)._training is None
    assert run.advance() is not None
    assert training(run).finished


def test_a_run_that_its_targets_end_is_measured_at_its_end() -> None:
    run = play(session(reserve=RESERVES, report=True, report_every=1000, seed=1))
    assert not run.history[-1].final
    assert len(run.history) > 2
    assert [bool(record.test) for record in run.history] == [True, *[False] * (len(run.history) - 2), True]


def test_a_finished_policy_keeps_what_acting_needs_whatever_is_planned_now() -> None:
    trained = AbasRal(**AHEAD)
    assert list(trained.train_policy(cycle_of_a_run()))[-1] == 1
    state = trained.state_dict()
    assert set(state["training"]["agent"]) == {"n_state", "unit", "online"}
    again = AbasRal(epochs=50)
    again.load_state_dict(state)
    assert fingerprint(again.state_dict()) == fingerprint(state)
    assert list(again.train_policy(cycle_of_a_run())) == []


# -- policies from files -----------------------------------------------------------------------------------------


def policy(monkeypatch: Any, **changes: Any) -> dict[str, Any]:
    """Train a policy and let it be what any file holds; return parameters that name one."""
    trained = AbasRal(**AHEAD)
    assert list(trained.train_policy(cycle_of_a_run()))[-1] == 1
    state = trained.state_dict() | changes
    monkeypatch.setattr("poolwright_plugins.strategies.abas_ral.strategy.read_policy", lambda path, name: state)
    return {"policy": "some.policy"}


def test_a_policy_that_was_trained_ahead_is_used_as_it_is(monkeypatch: Any, caplog: Any) -> None:
    run = session(policy(monkeypatch) | {"finish": False}, reserve=RESERVES)
    run.advance()
    assert caplog.text == ""
    assert training(run).done == 4
    assert run.history[0].selected


def test_a_policy_is_refused_where_the_run_is_to_choose_from_what_it_was_trained_on(monkeypatch: Any) -> None:
    run = session(policy(monkeypatch), reserve=RESERVES | {"policy": torch.arange(45, 102)})
    for _ in range(2):  # refused once, it is not there the second time
        with pytest.raises(ConfigError, match="was trained on 3 of the 49 samples that this run is to choose from"):
            run.advance()


def test_a_policy_of_other_state_data_is_refused(monkeypatch: Any) -> None:
    other = RESERVES | {"state": torch.arange(0, 10)}
    with pytest.raises(ConfigError, match="trained with 12 state data, here there are 10: use the"):
        session(policy(monkeypatch), reserve=other).advance()


# -- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"stop": "never"}, "stop is one of either, both, not 'never'"),
        ({"finish": 1}, "finish must be true or false, not 1"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, not 0"),
        ({"run_steps": 2.5}, "run_steps must be an integer of at least 1, not 2.5"),
        ({"share": 0}, "share must be above 0 and at most 1, not 0"),
        ({"epsilon": 2}, "epsilon must be between 0 and 1, not 2"),
        ({"gamma": -1}, "gamma must be between 0 and 1, not -1"),
        ({"start": 12}, "episodes on 12 samples cannot start with 12 labels"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        session(params).advance()


def test_half_of_the_papers_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="reserve both 'warm-start' and 'policy', or neither"):
        session(reserve={"policy": RESERVES["policy"]}).advance()


def test_a_network_that_diverges_is_no_policy() -> None:
    with pytest.raises(ConfigError, match=r"the Q-network diverged \(NaN or infinity\): lower lr, now 1e\+25"):
        session({"lr": 1e25, "updates": 60}).advance()


def test_abas_ral_conforms() -> None:
    testing.assert_conforms("strategy", AbasRal, SMALL | {"run_epochs": 1, "run_steps": 2, "warm_episodes": 1})


# -- learning ----------------------------------------------------------------------------------------------------

STEPS, LARGEST, BEST = 8, 20, 8


class Planted:
    """Episodes of eight steps in which a batch of 8 of 20 samples is best; the state says how far they are."""

    def __init__(self, seed: int) -> None:
        self._stream = torch.Generator().manual_seed(seed)
        self._taken = 0
        self.largest = LARGEST
        self._look()

    def _look(self) -> None:
        noise = torch.rand(12, generator=self._stream)
        self.state = (0.3 * noise + 0.7 * self._taken / STEPS).sort().values
        self.point = (0.1 * self._taken / STEPS, 0.05 * self._taken / STEPS)  # the warm start reaches the end alone
        self.over = self._taken == STEPS

    def step(self, k: int) -> float:
        self._taken += 1
        self._look()
        return -abs(k - BEST) / LARGEST + 0.05 * float(torch.randn((), generator=self._stream))


class PlantedWorld:
    def begin(self, seed: int, *, warm: bool) -> Planted:
        return Planted(seed)


def closed(seed: int) -> float:
    """Return how much of the gap between random batch sizes and the best one a trained policy closes."""
    strategy = AbasRal(epochs=15)
    trained = PolicyTraining(strategy._plan(strategy.epochs, strategy.steps), seed, strategy._agent)
    assert list(trained.run(PlantedWorld()))[-1] == 1
    assert trained.agent is not None
    lost = []
    for number in range(20):
        episode = Planted(10**8 + 1000 * seed + number)
        while not episode.over:
            k = trained.agent.best(episode.state, episode.largest)
            lost.append(abs(k - BEST))
            episode.step(k)
    by_chance = statistics.fmean(abs(k - BEST) for k in range(1, LARGEST + 1))
    return 1 - statistics.fmean(lost) / by_chance


@pytest.mark.slow
def test_a_policy_learns_that_a_medium_batch_is_best() -> None:
    # Seeds that were not used while building.
    shares = torch.tensor([closed(seed) for seed in range(1000, 1010)], dtype=torch.float64)
    half_width = 2.262 * shares.std() / 10**0.5  # Student's t, 9 degrees of freedom

    assert shares.mean() >= 0.5, shares
    assert shares.mean() - half_width > 0, shares
