"""The view of a session that is chosen for by hand."""

from __future__ import annotations

import pytest

from poolwright import ConfigError, PoolError, Session

from .helpers.build import session
from .helpers.toys import Blobs, Lowest, load


def by_hand() -> Session:
    """Return a session without a strategy, with 20 validation samples and a budget of 12."""
    return session(None, dataset=load(Blobs(n_validation=20)), budget=12)


def test_a_view_shows_the_cycle_that_was_fitted_last():
    run = by_hand()
    run.answer()
    run.advance()
    first = run.view({"probabilities"})
    run.ask(first.pool.unlabeled[:3])
    run.answer()
    run.advance()
    cycle = run.view({"embeddings"})

    assert (cycle.index, cycle.budget, len(cycle.pool.batch)) == (1, 9, 3)
    assert cycle.metrics == run.history[1].validation
    assert cycle.baseline == run.history[0].validation
    assert [record.index for record in cycle.history] == [0]
    assert cycle.embeddings().shape == (69, 2)


def test_a_view_is_refused_where_there_is_no_cycle_to_show():
    run = by_hand()
    with pytest.raises(PoolError, match=r"no cycle was fitted yet, call advance\(\)"):
        run.view()
    chosen = session(Lowest)
    chosen.answer()
    chosen.advance()
    with pytest.raises(PoolError, match="its strategy chooses"):
        chosen.view()


@pytest.mark.parametrize(
    ("needs", "message"), [({"probability"}, "unknown need 'probability'"), ({"dropout"}, "nobody provides 'dropout'")]
)
def test_a_view_of_what_cannot_be_had_is_refused(needs, message):
    run = by_hand()
    run.answer()
    run.advance()
    with pytest.raises(ConfigError, match=message):
        run.view(needs)
