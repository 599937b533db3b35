"""What a hook may not do: change what others see, read labels that nobody paid for, touch the run's learner."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolwright import LabelLeakError, LearnerError, PluginError, PoolError, hookimpl, select
from poolwright.pool import LABELED

from .helpers.build import EMPTY, picks, play, roles, session
from .helpers.toys import Blobs, LeastConfident, Lowest, Random, Softmax, load


def listening(call, *needs: str) -> type:
    """Return a plugin that calls ``call(cycle)`` in update."""

    class Meddling:
        def __init__(self) -> None:
            self.needs = frozenset(needs)

        @hookimpl
        def update(self, cycle):
            call(cycle)

    return Meddling


def meddled(call, *needs: str, **settings):
    """Return a run that was played to its end beside a plugin that meddles."""
    settings = {"dataset": load(Blobs(n_validation=8)), "budget": 15} | settings
    return play(session(roles(LeastConfident, update=[listening(call, *needs)]), **settings))


# -- ids ---------------------------------------------------------------------------------------------------------

VIEWS = {
    "unlabeled": lambda pool: pool.unlabeled,
    "all_unlabeled": lambda pool: pool.all_unlabeled,
    "labeled": lambda pool: pool.labeled,
    "asked": lambda pool: pool.asked,
    "skipped": lambda pool: pool.skipped,
    "reserved": lambda pool: pool.reserved("state"),
    "batch": lambda pool: pool.batch,
}


def stepped(*listeners, candidates=None):
    """Return what the strategy saw in three cycles in which samples were skipped and asked, and the run."""
    seen: list = []

    class Seeing(LeastConfident):
        @hookimpl
        def score(self, cycle):
            seen.append({name: view(cycle.pool).tolist() for name, view in VIEWS.items()})
            return super().score(cycle)

    run = session(
        roles(Seeing, update=listeners), reserve={"state": torch.tensor([70, 71])}, candidates=candidates, budget=30
    )
    for _ in range(3):
        run.advance()
        run.skip(run.outstanding[:1])
        told = run.outstanding[1:]
        run.tell(told, told % 4)
    run.advance()
    return seen, run


@pytest.mark.parametrize("candidates", [None, 20])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "change",
    [lambda ids: ids.zero_(), lambda ids: ids.numpy().fill(0), lambda ids: np.random.shuffle(ids.numpy())],
    ids=["zeroed", "zeroed by numpy", "shuffled by numpy"],
)
def test_ids_that_a_hook_changes_in_place_are_its_own_copy(change, view, candidates):
    expected, undisturbed = stepped(candidates=candidates)
    assert all(expected[-1][name] for name in VIEWS)
    seen, run = stepped(listening(lambda cycle: change(VIEWS[view](cycle.pool))), candidates=candidates)
    assert seen == expected
    assert picks(run) == picks(undisturbed)


def test_ids_changed_in_score_do_not_move_the_ids_that_the_scores_belong_to():
    class Zeroing:
        @hookimpl
        def score(self, cycle):
            ids = cycle.pool.unlabeled
            scores = (ids == 50).float()
            ids.zero_()
            return scores

    assert picks(play(session(Zeroing, budget=5)))[0] == [50, 8, 9, 10, 11]


def test_the_batch_given_to_reward_is_a_copy():
    seen: list = []

    class Zeroing(Lowest):
        @hookimpl
        def reward(self, cycle, batch):
            batch.zero_()
            return 0.0

        @hookimpl
        def update(self, cycle):
            seen.append(cycle.pool.batch.tolist())

    play(session(Zeroing, budget=5))
    assert seen[1] == [8, 9, 10, 11, 12]


# -- outputs, metrics, history -----------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["probabilities", "embeddings", "logits"])
@pytest.mark.parametrize(
    "change", [lambda x: x.zero_(), lambda x: x.mul_(2), lambda x: x.__setitem__(0, 1.0)], ids=["zero", "mul", "set"]
)
def test_outputs_that_a_hook_changes_in_place_are_an_error_that_names_it(change, output):
    expected = f"plugin 'meddling' of distribution 'this program' .*{output}.*"
    with pytest.raises(PluginError, match=expected) as caught:
        meddled(lambda cycle: change(getattr(cycle, output)()), output)
    assert "update" in str(caught.value)


def test_outputs_changed_in_place_are_noticed_in_select_too():
    class Meddling:
        needs = frozenset({"probabilities"})

        @hookimpl
        def select(self, cycle, budget):
            cycle.probabilities().zero_()
            return cycle.pool.unlabeled[:budget]

    with pytest.raises(PluginError, match=r"plugin 'meddling'.*select"):
        play(session(Meddling))


def test_copies_of_outputs_may_be_changed():
    def call(cycle):
        cycle.probabilities().clone().zero_()
        cycle.probabilities(cycle.pool.labeled).zero_()

    assert picks(meddled(call, "probabilities")) == picks(meddled(lambda cycle: None))


def test_the_features_of_a_selection_are_not_changed_unnoticed():
    class Meddling:
        needs = frozenset({"embeddings"})

        @hookimpl
        def select(self, cycle, budget):
            cycle.embeddings().zero_()
            return cycle.pool.unlabeled[:budget]

    with pytest.raises(PluginError, match=r"plugin 'meddling'.*select"):
        select(np.random.rand(20, 3).astype("float32"), 2, Meddling, catalog=EMPTY)


def test_history_is_a_copy_in_all_its_depth():
    def call(cycle):
        for record in cycle.history:
            record.selected.clear()
            record.seconds.clear()
            record.streams.clear()
            record.validation.clear()
            record.logs["x"] = [1.0]
            record.logs.setdefault("other.update.loss", []).append(9.0)

    logging = listening(lambda cycle: cycle.log("loss", 1.0))
    one = session(roles(LeastConfident, update=[logging, listening(call)]), dataset=load(Blobs(n_validation=8)))
    for record in play(one).history:
        assert record.selected or record.final
        assert set(record.seconds) >= {"fit", "evaluate", "update"}
        assert "learner" in record.streams
        assert "accuracy" in record.validation
        assert record.logs == {"meddling.update.loss": [1.0]}


# -- labels that nobody paid for ---------------------------------------------------------------------------------


def in_episode(call, **settings):
    """Play a run in which a hook simulates on the labeled samples and hands the episode over."""
    called: list = []

    def meddle(cycle):
        call(cycle, cycle.simulate(cycle.pool.labeled, start=4, budget=2, seed=1))
        called.append(cycle.index)

    run = meddled(meddle, "labels", **settings)
    assert called == [0, 1, 2, 3]
    return run


@pytest.mark.parametrize(
    "hidden",
    [
        lambda cycle: cycle.pool.unlabeled[:5],
        lambda cycle: cycle.pool.unlabeled[-1:],
        lambda cycle: torch.cat([cycle.pool.labeled, cycle.pool.unlabeled[:1]]),
        lambda cycle: torch.arange(80),
    ],
    ids=["unlabeled", "one unlabeled", "one unlabeled among labeled", "all"],
)
def test_an_episode_gives_no_labels_of_samples_outside_it(hidden):
    def call(cycle, episode):
        if not cycle.final:
            with pytest.raises(LabelLeakError):
                episode.dataset.pool.labels(hidden(cycle))

    in_episode(call)


def test_an_episode_gives_no_labels_of_the_test_data():
    def call(cycle, episode):
        with pytest.raises((LabelLeakError, AttributeError)):
            episode.dataset.test.labels(torch.arange(3))

    in_episode(call)


def test_an_episode_gives_the_inputs_and_the_labels_it_is_made_of_and_runs():
    def call(cycle, episode):
        ids = cycle.pool.labeled
        assert torch.equal(episode.dataset.pool.labels(ids), cycle.labels(ids))
        assert episode.advance().tolist() == []
        chosen = episode.pool.ids(0)[:2]
        episode.ask(chosen)
        episode.answer()
        episode.advance()
        assert [len(episode.history), episode.history[-1].labeled] == [2, 6]
        assert set(episode.history[-1].validation) >= {"accuracy"}

    in_episode(call)


# -- the learner -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "fit",
        "state_dict",
        "load_state_dict",
        "load_pretrained",
        "steps",
        "rate",
        "_step",
        "_fresh",
        "device",
        "nothing",
    ],
)
def test_of_the_learner_only_what_asks_it_can_be_reached(name):
    def call(cycle):
        with pytest.raises((AttributeError, LearnerError), match="plugin 'meddling'"):
            getattr(cycle.learner, name)

    meddled(call, "learner", budget=0)


@pytest.mark.parametrize("name", ["head", "rate", "predict", "provides", "new"])
def test_nothing_of_the_learner_can_be_set(name):
    def call(cycle):
        with pytest.raises((AttributeError, LearnerError), match="plugin 'meddling'"):
            setattr(cycle.learner, name, None)

    meddled(call, "learner", budget=0)


def test_what_asks_the_learner_can_be_reached():
    class Dropping(Softmax):
        provides = Softmax.provides | {"dropout"}
        predict_batch_size = 7

        def sample(self, inputs, generator):
            return {"probabilities": torch.rand(len(inputs), 4, generator=generator)}

    def call(cycle):
        x = torch.ones(3, 2)
        assert torch.equal(cycle.learner.predict(x)["logits"], cycle.learner.head(x))
        assert cycle.learner.sample(x, cycle.generator)["probabilities"].shape == (3, 4)
        assert set(cycle.learner.provides) == Dropping.provides
        assert cycle.learner.predict_batch_size == 7

    meddled(call, "learner", "head", learner=Dropping)


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.weight.data.zero_(),
        lambda head: head.bias.data.fill_(9),
        lambda head: head.weight.detach().numpy().fill(0),
        lambda head: head.load_state_dict({"weight": torch.zeros(4, 2), "bias": torch.zeros(4)}),
        lambda head: setattr(head, "weight", torch.nn.Parameter(torch.zeros(4, 2))),
    ],
)
@pytest.mark.parametrize("start", ["scratch", "warm"])
def test_the_head_is_a_copy(start, change):
    run = meddled(lambda cycle: change(cycle.learner.head), "head", start=start)
    undisturbed = meddled(lambda cycle: None, start=start)
    assert picks(run) == picks(undisturbed)
    assert [record.validation for record in run.history] == [record.validation for record in undisturbed.history]
    assert torch.equal(run.training.learner.head.weight, undisturbed.training.learner.head.weight)


class Ensemble(Softmax):
    """Two members, of which the first answers."""

    provides = frozenset({"probabilities", "members"})

    def __init__(self) -> None:
        self.members = [Softmax(), Softmax()]

    def fit(self, labeled, **options):
        for member in self.members:
            member.fit(labeled, **options)

    def predict(self, inputs):
        return {"probabilities": self.members[0].predict(inputs)["probabilities"]}


@pytest.mark.parametrize("name", ["fit", "load_state_dict", "_step"])
def test_the_members_of_an_ensemble_can_be_asked_but_not_fitted(name):
    def call(cycle):
        x = torch.ones(3, 2)
        first, second = cycle.learner.members
        assert torch.equal(first.predict(x)["probabilities"], cycle.learner.predict(x)["probabilities"])
        assert not torch.equal(first.predict(x)["probabilities"], second.predict(x)["probabilities"])
        with pytest.raises((AttributeError, LearnerError), match="plugin 'meddling'"):
            getattr(second, name)

    meddled(call, "members", learner=Ensemble)


def test_the_list_of_members_cannot_be_changed_for_the_run():
    def call(cycle):
        with pytest.raises((AttributeError, TypeError)):
            cycle.learner.members.clear()

    run = meddled(call, "members", learner=Ensemble)
    assert len(run.training.learner.members) == 2


# -- what is given back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1])
def test_samples_of_the_initial_pool_cannot_be_given_back(index):
    def call(cycle):
        if cycle.index == index:
            cycle.pool.release(torch.cat([cycle.pool.batch[:1], torch.tensor([0])]).unique())

    run = session(roles(Random, update=[listening(call)]))
    with pytest.raises(PoolError, match="id 0 is of the initial pool"):
        play(run)
    assert set(range(8)) <= set(run.pool.ids(LABELED).tolist())


def test_validation_labels_are_a_copy():
    class Zeroing(Lowest):
        needs = frozenset({"validation"})

        @hookimpl
        def update(self, cycle):
            cycle.validation.labels.zero_()

    settings = {"dataset": load(Blobs(n_validation=12)), "budget": 5}
    disturbed, quiet = play(session(Zeroing, **settings)), play(session(Lowest, **settings))
    assert [record.validation for record in disturbed.history] == [record.validation for record in quiet.history]
