"""BRAL-T as a strategy: it learns, it asks for exactly what it may, and it sees no label that nobody gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, LabelLeakError, Rows, Session, Store, TensorSplit, testing
from poolwright_plugins.strategies.bral_t import strategy as module
from poolwright_plugins.strategies.bral_t.environments import Environments
from poolwright_plugins.strategies.bral_t.strategy import BralT
from poolwright_plugins.strategies.bral_t.trustset import Importance, el2n

from .conftest import distributions, points

NEEDS = frozenset({"probabilities", "embeddings", "labels"})
QUICK: dict[str, Any] = {"environments": 3, "hidden": 16, "steps": 5}
CLASSES = 3


def cycle_for(p: Tensor, x: Tensor, role: str, *, labeled: int = 30, seed: int = 0, truth: bool = False) -> Cycle:
    """Return a cycle whose sample i is of class i modulo 3."""
    return testing.make_cycle(
        plugin="bral-t",
        role=role,
        needs=NEEDS | ({"truth"} if truth else set()),
        given={"probabilities": p, "embeddings": x},
        dataset=testing.make_dataset(n=len(x), n_classes=CLASSES),
        labeled=labeled,
        index=0,
        seed=seed,
    )


def batch_of(
    strategy: BralT, p: Tensor, x: Tensor, budget: int, *, labeled: int = 30, seed: int = 0, truth: bool = False
) -> Tensor:
    """Return what the strategy asks for after one update."""
    torch.manual_seed(seed)
    strategy.update(cycle_for(p, x, "update", labeled=labeled, seed=seed, truth=truth))
    return strategy.select(cycle_for(p, x, "select", labeled=labeled, seed=seed, truth=truth), budget)


def made(**params: Any) -> Any:
    """Return what makes BRAL-T with parameters, as a session takes it."""
    return lambda: BralT(**QUICK | params)


# -- learning ------------------------------------------------------------------------------------------------------


def planted(seed: int, n: int = 900, d: int = 8, kinds: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities, embeddings and labels of a pool where one kind of each class is hard for the learner.

    Kinds are regions of the embedding space; the learner doubts the samples of kind 0.
    """
    generator = torch.Generator().manual_seed(seed)
    labels, kind = torch.arange(n) % CLASSES, torch.randint(kinds, (n,), generator=generator)
    classes = 4 * torch.randn(CLASSES, 1, d, generator=generator)
    centers = classes + 1.5 * torch.randn(CLASSES, kinds, d, generator=generator)
    x = centers[labels, kind] + 0.4 * torch.randn(n, d, generator=generator)
    doubt = torch.where(kind == 0, 0.6, 0.05) + 0.1 * torch.rand(n, generator=generator)
    p = (doubt / CLASSES)[:, None].repeat(1, CLASSES)
    p[torch.arange(n), labels] += 1 - doubt
    return p, x, labels


def closed(seed: int, **params: Any) -> float:
    """Return how much of the gap between a random and the best possible batch is closed (hidden EL2N of the picks)."""
    p, x, labels = planted(seed)
    ids = batch_of(BralT(trust_set=30, hidden=64, **params), p, x, 60, labeled=200, seed=seed)
    value = el2n(p, labels)
    random, best = value[200:].mean(), value[200:].topk(60).values.mean()
    return float((value[ids].mean() - random) / (best - random))


def test_the_learned_policy_closes_half_of_the_gap_between_random_and_the_best_possible() -> None:
    # Seeds that were not used while building; the interval is Student's.
    gaps = torch.tensor([closed(seed, environments=15) for seed in range(1000, 1010)])
    mean, error = float(gaps.mean()), float(gaps.std() / len(gaps) ** 0.5)
    assert mean >= 0.5
    assert mean - scipy.stats.t.ppf(0.975, len(gaps) - 1) * error > 0


def test_without_steps_of_the_network_the_gap_stays_open() -> None:
    gaps = torch.tensor([closed(seed, environments=1, steps=1) for seed in range(1000, 1003)])
    assert gaps.mean() < 0.3


def test_the_score_of_a_sample_is_the_predicted_reward_of_its_action_cluster() -> None:
    p, x, _ = planted(0, n=300)
    strategy = BralT(**QUICK)
    strategy.update(cycle_for(p, x, "update"))
    cycle = cycle_for(p, x, "score")
    scores = strategy.score(cycle)
    assert scores.shape == (270,)
    choices = strategy._choices(cycle_for(p, x, "score"))
    assert [len(cluster) for cluster in choices] == [5, 5, 5]
    for choice in (choice for cluster in choices for choice in cluster):
        assert (scores[choice.rows] == choice.reward).all()


def test_the_log_tells_how_the_learning_went() -> None:
    p, x, _ = planted(0, n=300)
    cycle = cycle_for(p, x, "update", labeled=60)
    BralT(**QUICK, trust_set=9).update(cycle)
    logs = {name.removeprefix("bral-t.update."): values for name, values in cycle._state.logs.items()}
    assert logs["trust_set"] == [9]
    assert logs["trust_set_evenness"] == [pytest.approx(1)]
    assert len(logs["loss"]) == len(logs["reward"]) == 3
    assert max(logs["reward"]) < 0
    assert all(logs[f"seconds_{part}"][0] > 0 for part in ("trust_set", "clusters", "distances", "network"))


# -- the batch -----------------------------------------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    {},
    {"cut": "center"},
    {"per_cluster": False},
    {"per_cluster": False, "cut": "center"},
    {"rank": 2, "trust_set": 3},
    {"curriculum": False, "importance": "grand", "order": 2},
    {"clusters": 7, "actions": 50},
    {"clusters": 1, "actions": 1},
    {"labeled_share": 0.9, "points": 2, "buffer": 4, "minibatch": 3},
    {"policy": "pseudo-score"},
    {"policy": "truth"},
]


@pytest.mark.parametrize("params", VARIANTS, ids=str)
@pytest.mark.parametrize("budget", [1, 17, 69, 70, 99])
def test_exactly_the_budget_is_selected(params: dict[str, Any], budget: int) -> None:
    truth = params.get("policy") == "truth"
    ids = batch_of(BralT(**QUICK, **params), distributions(100, 3), points(100, 4), budget, truth=truth)
    assert len(ids) == len(ids.unique()) == min(budget, 70)
    assert ids.min() >= 30


def test_every_unlabeled_cluster_gives_its_share() -> None:
    _, x, _ = planted(3, n=330)
    far = x + 100 * torch.nn.functional.one_hot(torch.arange(330) % 3, 8)
    p = distributions(330, 3)
    each, overall = (batch_of(BralT(**QUICK, per_cluster=per_cluster), p, far, 12) for per_cluster in (True, False))
    assert torch.bincount(each % 3).tolist() == [4, 4, 4]
    assert torch.bincount(overall % 3, minlength=3).max() == 12


def test_the_pseudo_score_is_the_importance_of_the_predicted_class() -> None:
    p, x = distributions(90, 3), points(90, 2)
    strategy = BralT(policy="pseudo-score", lam=0.25)
    scores = strategy.score(cycle_for(p, x, "score"))
    assert torch.equal(scores, Importance(lam=0.25)(p[30:], p[30:].argmax(1), x[30:]))
    ids = strategy.select(cycle_for(p, x, "select"), 10)
    assert torch.equal(ids, 30 + scores.topk(10).indices)


def test_importances_read_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    p, x = distributions(90, 3), points(90, 2)
    strategy = BralT(policy="pseudo-score", importance="grand")
    whole = strategy.score(cycle_for(p, x, "score"))
    monkeypatch.setattr(module, "BLOCK_BYTES", 7 * 20)
    assert torch.equal(strategy.score(cycle_for(p, x, "score")), whole)


def test_the_upper_bound_takes_the_most_important_of_each_class_and_marks_what_it_needs() -> None:
    p, x, labels = planted(1, n=120)
    strategy = BralT(policy="truth", curriculum=False)
    ids = batch_of(strategy, p, x, 9, truth=True)
    value = el2n(p, labels)
    for c in range(CLASSES):
        of_class = torch.arange(30, 120)[labels[30:] == c]
        assert sorted(ids[labels[ids] == c].tolist()) == sorted(of_class[value[of_class].topk(3).indices].tolist())
    assert "truth" in strategy.needs
    assert "truth" not in BralT().needs


def test_the_upper_bound_must_be_allowed() -> None:
    dataset = testing.make_dataset()
    with pytest.raises(ConfigError, match="allow_truth"):
        Session(dataset, learner=testing.make_learner, strategy=made(policy="truth"), budget=8, initial=12)


# -- what it may not see -------------------------------------------------------------------------------------------


def test_hidden_labels_and_test_labels_change_nothing() -> None:
    batches = []
    for shift in (0, 1):
        dataset = testing.make_dataset(n=90)
        labels = dataset.pool.labels(torch.arange(90)).clone()
        labels[30:] = (labels[30:] + shift) % CLASSES
        dataset.pool = TensorSplit(dataset.pool.inputs(torch.arange(90)), labels)
        dataset.test = TensorSplit(dataset.test.inputs(torch.arange(18)), (torch.arange(18) + shift) % CLASSES)
        session = Session(
            dataset,
            learner=testing.make_learner,
            strategy=made(),
            budget=10,
            batch=10,
            initial=torch.arange(30),
            oracle=dataset.pool.labels,
        )
        session.answer()
        batches.append(session.advance())
    assert torch.equal(*batches)


def test_a_planted_leak_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(cycle: Cycle, *_: Any) -> Any:
        cycle.labels(cycle.pool.unlabeled[:1])

    monkeypatch.setattr(module, "labeled_trust_set", leaking)
    with pytest.raises(LabelLeakError, match="not labeled"):
        BralT(**QUICK).update(cycle_for(distributions(60, 3), points(60, 2), "update"))


# -- runs ----------------------------------------------------------------------------------------------------------


def session(store: Store | None = None, listener: Any = lambda event: None, **params: Any) -> Session:
    """Return a session whose initial pool is labeled."""
    dataset = testing.make_dataset(n=90)
    one = Session(
        dataset,
        learner=testing.make_learner,
        strategy=made(**params),
        budget=32,
        batch=8,
        initial=torch.arange(30),
        oracle=dataset.pool.labels,
        store=store,
        listener=listener,
    )
    if one.index == 0:
        one.answer()
    return one


def play(one: Session) -> list[list[int]]:
    """Return the batches of a session run to its end."""
    while one.advance() is not None:
        one.answer()
    return [record.selected for record in one.history]


class Killed(BaseException):
    """The run is killed."""


@pytest.mark.parametrize("retrain_every", [1, 2])
def test_a_run_killed_in_the_middle_of_training_resumes_to_the_same_result(retrain_every: int, tmp_path: Path) -> None:
    whole = play(session(retrain_every=retrain_every))
    seen = []

    def kill(event: Any) -> None:
        if event.kind == "progress" and "clusters" in event.text and event.cycle == 2:
            seen.append(event)
            if len(seen) == 3:
                raise Killed

    store = Store(tmp_path)
    with pytest.raises(Killed):
        play(session(store, kill, retrain_every=retrain_every))
    store.close()
    store = Store(tmp_path)
    resumed = session(store, retrain_every=retrain_every)
    assert resumed.index == 2
    assert play(resumed) == whole
    store.close()


def test_a_network_is_used_unchanged_until_the_next_is_due() -> None:
    one = session(retrain_every=2)
    play(one)
    trained = [any(name.endswith("update.loss") for name in record.logs) for record in one.history]
    assert trained == [True, False, True, False, False]


def test_the_last_cycle_trains_nothing() -> None:
    one = session()
    play(one)
    assert one.history[-1].final
    assert not any("loss" in name for name in one.history[-1].logs)


def test_rewards_of_a_run_are_distances_of_the_batches() -> None:
    one = session()
    play(one)
    rewards = [record.reward for record in one.history[1:]]
    assert all(reward is not None and reward < 0 for reward in rewards)


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labeled", "params", "message"),
    [
        (0, {}, "there are none: raise \\[initial\\] size"),
        (1, {}, "there is one: raise \\[initial\\] size"),
        (6, {"rank": 2, "trust_set": 30}, "no class has labeled samples of rank 2"),
        (30, {"lr": 1e9, "steps": 50}, "lower lr"),
    ],
)
def test_too_few_labels_and_divergence_are_errors_with_a_way_out(
    labeled: int, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        BralT(**QUICK | params).update(cycle_for(distributions(60, 3), points(60, 2), "update", labeled=labeled))


@pytest.mark.parametrize("labeled", [2, 3, 4])
def test_fewer_labels_than_classes_are_enough_to_start(labeled: int) -> None:
    ids = batch_of(BralT(**QUICK), distributions(60, 3), points(60, 2), 5, labeled=labeled)
    assert len(ids.unique()) == 5


def test_environments_without_any_sample_of_the_trustset_are_an_error() -> None:
    p, x = distributions(60, 3), points(60, 2)
    cycle = cycle_for(p, x, "update", labeled=50)
    with pytest.raises(ConfigError, match="no sample of the TrustSet came into any U'"):
        BralT(**QUICK, labeled_share=0.98)._trained(cycle, x[:50], torch.zeros(50, dtype=torch.bool))


def test_choosing_before_any_update_is_an_error() -> None:
    with pytest.raises(ConfigError, match="update has to run before"):
        BralT(**QUICK).select(cycle_for(distributions(60, 3), points(60, 2), "select"), 5)


def test_embeddings_that_are_not_finite_are_the_users_to_mend() -> None:
    x = points(60, 2)
    x[3, 1] = torch.inf
    with pytest.raises(ConfigError, match="bral-t: "):
        BralT(**QUICK).update(cycle_for(distributions(60, 3), x, "update"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"policy": "best"}, "policy is one of learned, pseudo-score, truth, not 'best'"),
        ({"cut": "none"}, "cut is one of center, random"),
        ({"importance": "entropy"}, "importance is one of el2n, grand"),
        ({"lam": 0}, "lam must be a number above 0"),
        ({"rank": 0}, "rank must be an integer of at least 1"),
        ({"actions": 2.5}, "actions must be an integer"),
        ({"environments": 0}, "environments must be"),
        ({"clusters": 0}, "clusters must be"),
        ({"trust_set": 0}, "trust_set must be"),
        ({"retrain_every": 0}, "retrain_every must be"),
        ({"labeled_share": 1.0}, "labeled_share must be above 0 and below 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"order": 0.5}, "order must be at least 1"),
        ({"order": 99}, "p must be from 1 to 32"),
    ],
)
def test_unusable_parameters_are_errors_that_name_them(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"bral-t: {message}"):
        BralT(**QUICK | params).update(cycle_for(distributions(60, 3), points(60, 2), "update"))


def test_the_literal_reading_takes_the_best_clusters_of_all_and_cuts_the_last_around_its_mean() -> None:
    p, x, _ = planted(2, n=330)
    strategy = BralT(**QUICK, per_cluster=False, cut="center")
    strategy.update(cycle_for(p, x, "update"))
    ids = strategy.select(cycle_for(p, x, "select"), 70)
    choices = [choice for cluster in strategy._choices(cycle_for(p, x, "select")) for choice in cluster]
    taken: list[int] = []
    for choice in sorted(choices, key=lambda choice: -choice.reward):
        points_of = x[30:][choice.rows]
        near = (points_of - points_of.mean(0)).norm(dim=1).argsort()
        whole = len(choice.rows) <= 70 - len(taken)
        taken += choice.rows.tolist() if whole else choice.rows[near[: 70 - len(taken)]].tolist()
    assert len(choices[0].rows) < 70
    assert (ids - 30).tolist() == taken


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_pool_in_memory_beside_labeled_samples_on_cuda_gives_its_clusters_there() -> None:
    x = points(90, 4)
    here = Environments(3, 2, 1, 512, torch.Generator().manual_seed(0), torch.device("cuda"))
    found, states = here.states(x[:30].cuda(), Rows(x[30:].numpy()))
    groups, inputs = here.actions_of(Rows(x[30:].numpy()), found.members[0], states[0])
    assert states.device.type == inputs.device.type == "cuda"
    assert sum(len(rows) for rows in groups) == len(found.members[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_embeddings_on_cuda_give_a_batch() -> None:
    ids = batch_of(BralT(**QUICK), distributions(90, 3).cuda(), points(90, 4).cuda(), 12)
    assert ids.device.type == "cpu"
    assert len(ids.unique()) == 12
