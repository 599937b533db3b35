"""SRAL: what it stores, keeps, gives back and pays for, and that it learns."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch

from poolwright import ConfigError, LabelLeakError, Part, Roles, Store, hookimpl, testing
from poolwright.pool import LABELED
from poolwright.testing.fingerprints import fingerprint
from poolwright_plugins.learners.mlp import MLP
from poolwright_plugins.rl.updates import DDPG
from poolwright_plugins.strategies.sral import SRAL
from poolwright_plugins.strategies.sral.networks import Actor, Critic, agent
from poolwright_plugins.strategies.sral.strategy import carried_out
from poolwright_plugins.strategies.uncertainty import entropy

from .planted import STEPS, Worths, planted, play

SMALL: dict[str, Any] = {"n": 4, "hidden": [8], "learning_starts": 4, "minibatch": 4}


def sral(**params: Any) -> Roles:
    return Roles(name=Part("sral", SMALL | params))


def instance(session: Any) -> Any:
    (member,) = [m for m in session._composition.members if isinstance(m.instance, SRAL)]
    return member.instance


def stored(session: Any) -> dict[str, torch.Tensor]:
    held: dict[str, torch.Tensor] = instance(session)._replay.state_dict()["stored"]
    return held


# -- what is stored ----------------------------------------------------------------------------------------------


def test_every_stored_reward_is_the_change_of_accuracy_its_picks_made():
    session = play(planted(sral(), budget=60, seed=3))
    held = stored(session)
    x = session.dataset.pool.data

    assert len(held["reward"]) > 20
    for state, action, reward in zip(held["state"], held["action"], held["reward"], strict=True):
        worths = torch.where(action >= 0, state[:, 0].float(), 0).sum()
        assert reward.item() == pytest.approx(worths.item() / STEPS, abs=1e-7)
    rewards = [record.reward for record in session.history[1:]]
    for record, before, reward in zip(session.history[1:], session.history, rewards, strict=False):
        assert reward == pytest.approx(x[before.selected, 0].sum().item() / STEPS)
        assert record.released == (0 if reward > 0 else len(before.selected))


def test_the_next_state_of_a_transition_is_the_state_that_follows_it():
    session = play(planted(sral(b=5), budget=40, seed=1))
    held = stored(session)

    assert len(held["state"]) > 10
    assert torch.equal(held["next_state"][:-1], held["state"][1:])


def test_a_chunk_that_is_refused_is_stored_with_no_reward_and_the_next_one_follows():
    refusing = Part(Refusing, SMALL | {"noise": 0.0, "patience": 3})
    session = planted(Roles(name=refusing), budget=40)
    first = session.advance()
    assert list(session.history[0].logs.values()) == [[3]]  # chunks that were looked at
    assert first.tolist() == [10]  # of the third chunk of four, the first of equals
    session.answer()
    session.advance()

    held = stored(session)
    assert held["reward"].tolist() == [0, 0]
    assert (held["action"] < 0).all()
    assert session.history[1].selected == [22]  # the chunks that were refused are not looked at again


class Refusing(SRAL):
    """SRAL whose actor refuses everything."""

    def _make(self, d):
        super()._make(d)
        for parameter in self._agent.actor.head[-1].parameters():
            parameter.data.fill_(0)
        self._agent.actor.head[-1].bias.data.fill_(-0.5)


def test_the_action_that_was_carried_out_is_what_is_stored():
    wanted = torch.tensor([0.5, -0.3, 0.2, -0.1])

    assert torch.equal(carried_out(wanted, torch.tensor([0, 2])), wanted)
    assert carried_out(wanted, torch.tensor([0])).tolist() == pytest.approx([0.5, -0.3, -0.2, -0.1])
    assert carried_out(-wanted.abs(), torch.tensor([3])).tolist() == pytest.approx([-0.5, -0.3, -0.2, 0.1])
    assert carried_out(torch.tensor([-0.5]), torch.tensor([0, 1])).tolist() == [0.5]
    assert carried_out(torch.tensor([-0.5]), torch.tensor([])).tolist() == [-0.5]


def test_nothing_is_learned_before_the_buffer_holds_more_than_the_threshold():
    session = planted(sral(learning_starts=12, patience=1), budget=60)
    session.advance()
    fresh = fingerprint(instance(session)._agent)
    session.answer()
    learned: dict[int, str] = {}
    while session.advance() is not None:
        learned.setdefault(len(instance(session)._replay), fingerprint(instance(session)._agent))
        session.answer()

    assert all(learned[size] == fresh for size in range(1, 13))
    assert learned[13] != fresh


def test_the_paper_s_threshold_is_128():
    assert (SRAL().learning_starts, SRAL().capacity, SRAL().minibatch, SRAL().b) == (128, 3000, 64, 300)


# -- what is kept and paid ---------------------------------------------------------------------------------------


def test_labels_charged_never_exceed_the_budget_and_rejected_ones_are_among_them():
    session = play(planted(sral(), budget=50, seed=2))
    released = sum(record.released for record in session.history)

    assert session.pool.spent == 50
    assert released > 0
    assert len(session.pool.ids(LABELED)) == 2 + 50 - len(set(_released(session)))
    assert all(record.paid <= 52 for record in session.history)


def _released(session: Any) -> list[int]:
    """Return the ids that were paid for and are not in the labeled set."""
    paid = {i for record in session.history for i in record.selected}
    return sorted(paid - set(session.pool.ids(LABELED).tolist()))


def test_what_is_kept_helps_and_what_does_not_goes_back():
    session = play(planted(sral(action="chunk", n=1), budget=60, seed=4))
    kept = [i for i in session.pool.ids(LABELED).tolist() if i >= 2]
    x = session.dataset.pool.data[:, 0]

    assert kept
    assert (x[kept] == 1).all()
    assert (x[_released(session)] == -1).all()


def test_a_sample_that_was_rejected_costs_nothing_when_it_is_picked_again():
    dataset = Worths(n=30, seed=5)
    session = play(planted(sral(b=1), budget=28, dataset=dataset, seed=5))
    picks = [i for record in session.history for i in record.selected]

    assert len(picks) > len(set(picks))
    assert session.pool.spent == 28


def test_rejected_samples_are_refunded_where_training_samples_count():
    session = play(planted(sral(charge_rejected=False), budget=30, seed=2))
    asked = {i for record in session.history for i in record.selected}

    assert len(asked) > 35  # more labels than the budget says
    assert session.pool.spent == 30
    assert len(session.pool.ids(LABELED)) == 2 + 30
    assert all(record.paid == record.labeled for record in session.history)
    assert (session.dataset.pool.data[session.pool.ids(LABELED)[2:], 0].sum()) > 0


class Shuffling:
    """Scores that differ from cycle to cycle."""

    @hookimpl
    def score(self, cycle):
        return torch.rand(len(cycle.pool.unlabeled), generator=cycle.generator)


def test_the_ranking_is_made_anew_after_b_kept_samples_and_not_before():
    roles = Roles(score=Part(Shuffling), select=Part("sral", SMALL | {"b": 3, "n": 2}))
    session = planted(roles, budget=40, seed=6)
    queues: list[list[int]] = []
    while session.advance() is not None:
        queues.append(instance(session)._queue.tolist())
        session.answer()
    kept, anew = 0, 0
    for record, before, after in zip(session.history[1:], queues, queues[1:], strict=False):
        kept += len(session.history[record.index - 1].selected) if record.reward > 0 else 0
        assert (after == before[len(before) - len(after) :]) == (kept < 3), record.index
        anew += kept >= 3
        kept = 0 if kept >= 3 else kept

    assert anew > 2


def test_the_entropy_is_computed_only_when_a_ranking_is_due():
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.7, 0.3]])
    cycle = testing.make_cycle(needs={"probabilities", "embeddings"}, given={"probabilities": p}, labeled=0)
    strategy = SRAL()

    assert torch.equal(strategy.score(cycle), entropy(p))
    strategy._queue = torch.tensor([1])
    assert strategy.score(cycle).tolist() == [0, 0, 0]


def test_scores_of_another_plugin_make_sral_plus_random():
    roles = Roles(score=Part("random"), select=Part("sral", SMALL))
    session = play(planted(roles, budget=20))

    assert session._composition.owners == {"score": "random", "select": "sral", "reward": "sral"}
    assert session.pool.spent == 20
    assert instance(session)._replay is not None


# -- truth -------------------------------------------------------------------------------------------------------


def test_no_label_of_test_data_is_read():
    assert play(planted(sral(), budget=20, sealed_test=True)).pool.spent == 20


def test_a_planted_leak_of_test_labels_is_caught():
    class Leaky(SRAL):
        @hookimpl
        def reward(self, cycle):
            split = cycle._state.dataset.test
            return float(split.labels(torch.arange(len(split))).float().mean()) + 1

    session = planted(Roles(name=Part(Leaky, SMALL)), budget=20, sealed_test=True)
    with pytest.raises(LabelLeakError, match="read labels of test data"):
        play(session)


def test_rewards_come_from_validation_data_whatever_the_test_labels_are():
    def run(change: bool) -> list[list[int]]:
        dataset = Worths(n=200)
        session = planted(sral(), budget=40, dataset=dataset, report=True)
        if change:
            dataset.test._labels.fill_(1)
        return [record.selected for record in play(session).history]

    assert run(change=False) == run(change=True)


# -- stopping and going on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("charge_rejected", [True, False])
def test_stopped_while_it_learns_it_goes_on_as_if_it_never_was(charge_rejected, tmp_path):
    params = {"learning_starts": 6, "b": 7, "net": "conv", "updates": 2, "charge_rejected": charge_rejected}
    whole = play(planted(sral(**params), budget=60, seed=8))
    for stop in (3, 10, 17):  # stopped, gone on with, stopped again
        store = Store(tmp_path)
        session = planted(sral(**params), budget=60, seed=8, store=store)
        while session.index < stop:
            session.advance()
            session.answer()
        store.close()
    store = Store(tmp_path)
    resumed = play(planted(sral(**params), budget=60, seed=8, store=store))
    store.close()

    assert [r.selected for r in resumed.history] == [r.selected for r in whole.history]
    assert [r.streams for r in resumed.history] == [r.streams for r in whole.history]
    assert fingerprint(instance(resumed).state_dict()) == fingerprint(instance(whole).state_dict())
    assert sum("sral.update.critic_error" in record.logs for record in whole.history) > 10


def test_killed_in_the_middle_of_a_learning_step_it_goes_on_as_if_it_never_was(tmp_path, monkeypatch):
    params = {"learning_starts": 6, "updates": 2}
    whole = play(planted(sral(**params), budget=40, seed=9))
    learn, steps = DDPG.update, []

    def dying(agent: DDPG, *args: Any) -> Any:
        steps.append(learn(agent, *args))  # the weights have changed when it dies
        if len(steps) in (1, 6, 13):
            raise KeyboardInterrupt
        return steps[-1]

    monkeypatch.setattr(DDPG, "update", dying)
    while True:
        store = Store(tmp_path)
        try:
            resumed = play(planted(sral(**params), budget=40, seed=9, store=store))
            break
        except KeyboardInterrupt:
            continue
        finally:
            store.close()

    assert len(steps) > 13
    assert [r.streams for r in resumed.history] == [r.streams for r in whole.history]
    assert fingerprint(instance(resumed).state_dict()) == fingerprint(instance(whole).state_dict())


# -- parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("shape", [(10, 512), (1, 1), (3, 7)])
def test_actions_lie_between_minus_one_and_one_and_start_close_to_zero(net, shape):
    states = torch.randn(5, *shape)
    actions = Actor(shape, shape[0], net, [8, 8])(states)

    assert actions.shape == (5, shape[0])
    assert actions.abs().max() < 0.1
    assert (Actor(shape, 1, net, [8])(1e6 * states).abs() <= 1).all()
    assert Critic(shape, shape[0], net, [8, 8])(states, actions).shape == (5,)


@pytest.mark.parametrize(("net", "linear", "convolutions"), [("mlp", 5, 0), ("conv", 3, 2)])
def test_networks_have_the_layers_of_the_paper(net, linear, convolutions):
    made = agent((10, 16), 10, net, None, lr=1e-4, gamma=0.99, rate=0.01)
    for network in (made.actor, made.critic):
        kinds = [type(module).__name__ for module in network.modules()]
        assert (kinds.count("Linear"), kinds.count("Conv2d")) == (linear, convolutions)


def test_one_action_a_chunk_takes_it_whole_or_not_at_all():
    session = planted(sral(action="chunk", b=1000, patience=5), budget=41)
    play(session)
    sizes = [len(record.selected) for record in session.history[:-1]]

    assert set(sizes[:-1]) == {4}
    assert stored(session)["action"].shape[1] == 1


def test_the_last_chunk_of_a_ranking_may_be_smaller():
    session = play(planted(sral(n=7), budget=9, dataset=Worths(n=11)))

    assert session.pool.spent == 9


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n": 0}, "sral: n must be an integer of at least 1, not 0"),
        ({"b": 2.5}, "sral: b must be an integer"),
        ({"patience": 0}, "patience"),
        ({"learning_starts": 3000}, "or the buffer never holds more"),
        ({"action": "batch"}, "action is one of sample, chunk, not 'batch'"),
        ({"net": "rnn"}, "net is one of mlp, conv, not 'rnn'"),
        ({"hidden": [8, 0]}, "hidden must be a list of positive sizes"),
        ({"lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"gamma": 1.1}, "gamma must be between 0 and 1"),
        ({"rate": 0.0}, "rate must be above 0 and at most 1"),
        ({"noise": math.nan}, "noise must be 0 or more, not nan"),
        ({"noise_decay": 1.5}, "noise_decay must be above 0 and at most 1"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(params, message):
    session = planted(Roles(name=Part("sral", params)), budget=5)
    with pytest.raises(ConfigError, match=message):
        session.advance()


def test_a_policy_that_diverges_is_no_policy():
    with pytest.raises(ConfigError, match=r"sral: actor and critic diverged .*: lower lr, now 1e\+30"):
        play(planted(sral(lr=1e30, updates=5), budget=60))


def test_features_may_be_the_data_set_s_own():
    dataset = testing.make_dataset()
    roles = sral(features="features")
    session = planted(roles, budget=10, dataset=dataset, learner=lambda: testing.make_learner())
    play(session)

    assert instance(session)._d == dataset.features.shape[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_learner_on_a_gpu_is_followed_from_the_cpu():
    learner = partial(MLP, hidden=(8,), min_steps=5, epochs=1, device="cuda")
    session = planted(sral(), budget=24, dataset=testing.make_dataset(), learner=learner, device="cuda")
    play(session)

    assert session.pool.spent == 24
    assert stored(session)["state"].device.type == "cpu"
    assert all(parameter.device.type == "cpu" for parameter in instance(session)._agent.actor.parameters())
    assert any("sral.update.critic_error" in record.logs for record in session.history)


# -- learning ----------------------------------------------------------------------------------------------------


def closed(seed: int) -> float:
    """Return how much of the gap between random and best picks a trained policy closes, in its last quarter.

    Half of a chunk helps. A random policy accepts as many samples that harm, and is worth nothing on average; the best
    one accepts every sample that helps and no other.
    """
    params = {"n": 2, "b": 10_000, "hidden": [64, 64], "lr": 2e-3, "gamma": 0.5, "rate": 0.05, "updates": 4}
    params |= {"learning_starts": 64, "noise": 0.3, "noise_decay": 0.997}
    session = play(planted(Roles(name=Part("sral", params)), budget=500, dataset=Worths(n=3000, d=2, seed=seed)))
    last = session.history[-len(session.history) // 4 :]
    chunks = sum(session.history[record.index - 1].logs["sral.select.chunks"][0] for record in last)
    return sum(record.reward for record in last) * STEPS / chunks / (params["n"] / 2)


@pytest.mark.slow
def test_a_policy_learns_which_half_of_a_chunk_helps():
    # Seeds that were not used while building.
    shares = torch.tensor([closed(seed) for seed in range(1000, 1010)], dtype=torch.float64)
    half_width = 2.262 * shares.std() / 10**0.5  # Student's t, 9 degrees of freedom

    assert shares.mean() >= 0.5, shares
    assert shares.mean() - half_width > 0, shares
