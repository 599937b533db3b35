"""The conformance suite itself: each rule is broken, alone, by a plugin made for it, and kept by the good ones."""

from __future__ import annotations

import pytest
import torch

from poolwright import ConfigError, UnknownNameError, testing
from poolwright.catalog import Catalog

from .third_party.faulty import datasets, learners, strategies, wrappers

FAULTS = {
    "strategy": strategies.FAULTS,
    "wrapper": wrappers.FAULTS,
    "learner": learners.FAULTS,
    "dataset": datasets.FAULTS,
}
"""Kind -> (rule, what the finding says, plugin)."""
GOOD = [
    *(("strategy", plugin) for plugin in strategies.GOOD),
    *(("wrapper", plugin) for plugin in wrappers.GOOD),
    *(("learner", plugin) for plugin in learners.GOOD),
    *(("dataset", plugin) for plugin in datasets.GOOD),
]
CASES = [(kind, *fault) for kind, faults in FAULTS.items() for fault in faults]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine take longer than the small tensors are worth."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("kind", "rule", "reason", "plugin"), CASES, ids=[f"{c[0]}-{c[3].__name__}" for c in CASES])
def test_a_plugin_with_one_fault_breaks_exactly_that_rule(kind, rule, reason, plugin):
    findings = testing.check_plugin(kind, plugin)

    assert [finding.rule for finding in findings if finding.failed] == [rule], "\n".join(map(str, findings))
    [finding] = [finding for finding in findings if finding.failed]
    assert reason in finding.reason
    assert "\n" not in str(finding)


def test_every_rule_has_a_plugin_that_breaks_it():
    broken = {
        rule.check
        for kind, faults in FAULTS.items()
        for fault in faults
        for rule in testing.RULES[kind]
        if rule.title == fault[0]
    }
    unbroken = {rule.title for rules in testing.RULES.values() for rule in rules if rule.check not in broken}

    assert unbroken == set()


@pytest.mark.parametrize(("kind", "plugin"), GOOD, ids=[f"{kind}-{plugin.__name__}" for kind, plugin in GOOD])
def test_a_good_plugin_breaks_no_rule(kind, plugin):
    findings = testing.check_plugin(kind, plugin)

    assert [str(finding) for finding in findings if finding.failed] == []
    assert [finding.rule for finding in findings] == [rule.title for rule in testing.RULES[kind]]
    assert all(finding.reason for finding in findings if finding.passed is None)


def test_rules_that_hang_on_a_broken_one_are_skipped_and_say_so():
    findings = {f.rule: f for f in testing.check_plugin("strategy", strategies.Raises)}
    skipped = [f for f in findings.values() if "cannot be judged while this is broken: update takes" in f.reason]

    assert len(skipped) > 10
    assert {f.outcome for f in skipped} == {"skip"}


def test_assert_conforms_lists_every_failing_line():
    with pytest.raises(AssertionError) as caught:
        testing.assert_conforms("strategy", strategies.TwoFaults)

    lines = str(caught.value).splitlines()
    assert lines[0].endswith("breaks 2 rules:")
    assert sorted(line[:4] for line in lines[1:]) == ["FAIL", "FAIL"]


def test_assert_conforms_is_silent_about_a_good_plugin():
    testing.assert_conforms("strategy", strategies.Remembers, {"weight": 0.25})


def test_parameters_reach_the_plugin():
    findings = testing.check_plugin("strategy", strategies.Remembers, {"weight": "heavy"})

    assert any("TypeError" in finding.reason for finding in findings if finding.failed)


def test_a_parameter_that_the_plugin_needs_is_named():
    [finding] = [f for f in testing.check_plugin("strategy", strategies.NeedsParameter) if f.failed]

    assert finding.rule == "it can be imported and made"
    assert "needs the parameter 'path'" in finding.reason


def test_an_unknown_kind_and_an_unknown_name_are_errors_of_the_caller():
    with pytest.raises(ConfigError, match="did you mean 'strategy'"):
        testing.check_plugin("strategie", strategies.Remembers)
    with pytest.raises(UnknownNameError):
        testing.check_plugin("strategy", "no-such-name", catalog=Catalog(points=()))


def test_the_suite_leaves_global_streams_and_threads_as_they_were():
    torch.set_num_threads(2)
    before = torch.get_rng_state()

    testing.check_plugin("strategy", strategies.Remembers)

    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == 2


def test_a_cycle_has_what_was_given_for_it():
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    cycle = testing.make_cycle(given={"probabilities": p}, labeled=0)

    assert cycle.index == 0
    assert cycle.pool.unlabeled.tolist() == [0, 1, 2]
    assert torch.equal(cycle.probabilities(), p)


def test_a_cycle_has_a_fitted_learner_a_history_and_the_batch_of_the_cycle_before():
    cycle = testing.make_cycle(index=2, labeled=6)

    assert cycle.index == 2
    assert [record.index for record in cycle.history] == [0, 1]
    assert len(cycle.pool.labeled) == 6 + 2 * 4
    assert cycle.pool.batch.tolist() == [10, 11, 12, 13]
    assert cycle.metrics["accuracy"] > 0.5
    assert torch.allclose(cycle.probabilities().sum(1), torch.ones(len(cycle.pool.unlabeled)))


def test_a_made_learner_has_the_abilities_that_were_asked_for_and_no_others():
    able = testing.make_cycle(needs={"dropout", "members", "loss", "learner"}).learner
    bare = testing.make_cycle(learner=testing.make_learner({"logits"})).learner
    x = torch.rand(5, 1, 8, 8)

    assert able.predict(x)["loss"].shape == (5,)
    assert able.sample(x, torch.Generator())["probabilities"].shape == (5, 3)
    assert len({tuple(member.predict(x)["logits"].flatten().tolist()) for member in able.members}) == 3
    assert set(bare.predict(x)) == {"logits", "predictions"}
    for name in ("head", "sample", "members"):
        assert not hasattr(bare, name)
