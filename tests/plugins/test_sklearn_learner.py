"""Classifiers of scikit-learn as learners."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from poolwright import ConfigError, LearnerError
from poolwright_plugins.learners.sklearn import Sklearn

from .learner_parts import Blobs, fit

FOREST = "sklearn.ensemble.RandomForestClassifier"


def test_probabilities_are_the_estimators() -> None:
    data = Blobs()
    out = fit(Sklearn(params={"C": 0.01}), data.labeled()).predict(data.inputs)
    x = data.inputs.flatten(1)
    expected = LogisticRegression(C=0.01).fit(x.numpy(), data.pool.labels(torch.arange(40)).numpy())
    torch.testing.assert_close(
        out["probabilities"].double(), torch.from_numpy(expected.predict_proba(x.numpy())).double()
    )
    assert torch.equal(out["embeddings"], x)
    assert set(out) == Sklearn.provides


@pytest.mark.parametrize("estimator", ["LogisticRegression", FOREST, "KNeighborsClassifier"])
def test_classes_without_labels_keep_their_column_with_probability_0(estimator: str) -> None:
    data = Blobs(classes=4)
    labeled = [i for i in range(40) if i % 4 in (1, 3)]
    p = fit(Sklearn(estimator=estimator), data.labeled(*labeled)).predict(data.inputs)["probabilities"]
    assert p.shape == (40, 4)
    assert (p[:, [0, 2]] == 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(40))
    assert p[labeled].argmax(1).tolist() == [i % 4 for i in labeled]


@pytest.mark.parametrize("estimator", ["LogisticRegression", FOREST])
def test_a_single_labeled_class_is_certain(estimator: str) -> None:
    data = Blobs()
    p = fit(Sklearn(estimator=estimator), data.labeled(2, 5)).predict(data.inputs)["probabilities"]
    assert torch.equal(p, torch.tensor([0.0, 0.0, 1.0]).expand(40, 3))


def test_the_random_state_comes_from_the_generator_unless_given() -> None:
    data = Blobs()

    def forest(stream: int, **params: Any) -> torch.Tensor:
        learner = Sklearn(estimator=FOREST, params={"n_estimators": 5, **params})
        result: torch.Tensor = fit(learner, data.labeled(*range(9)), stream=stream).predict(data.inputs)[
            "probabilities"
        ]
        return result

    assert torch.equal(forest(1), forest(1))
    assert not torch.equal(forest(1), forest(2))
    assert torch.equal(forest(1, random_state=3), forest(2, random_state=3))


def test_each_fit_starts_anew() -> None:
    data = Blobs()
    learner = fit(Sklearn(), data.labeled())
    fit(learner, data.labeled(0, 3))
    assert (learner.predict(data.inputs)["probabilities"][:, 0] == 1).all()
    with pytest.raises(LearnerError, match="from scratch at every fit"):
        fit(learner, data.labeled(), start="warm")


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"estimator": "LogisticRegresion"}, ConfigError, "no estimator 'LogisticRegresion' in scikit-learn"),
        ({"estimator": "sklearn.ensemble.Forest"}, ConfigError, "no estimator 'Forest' in module 'sklearn.ensemble'"),
        ({"estimator": "no_such_package.Model"}, ConfigError, "'no_such_package.Model' cannot be imported"),
        ({"params": {"depth": 3}}, ConfigError, "params do not fit LogisticRegression: .*depth"),
        ({"params": {"C": -1.0}}, LearnerError, "LogisticRegression refused the data"),
        ({"estimator": "LinearSVC"}, LearnerError, "LinearSVC .* has no predict_proba"),
    ],
)
def test_estimators_that_cannot_be_used_are_errors_that_say_why(
    params: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fit(Sklearn(**params), Blobs().labeled())


def test_asking_before_the_fit_is_an_error() -> None:
    with pytest.raises(LearnerError, match="has not been fitted"):
        Sklearn().predict(torch.zeros(1, 4))
