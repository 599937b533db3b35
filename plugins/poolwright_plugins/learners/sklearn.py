"""Classifiers of scikit-learn, and any that look like them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolwright import ConfigError, LearnerError, Samples

HOMES = (
    "linear_model",
    "ensemble",
    "svm",
    "neighbors",
    "tree",
    "naive_bayes",
    "neural_network",
    "discriminant_analysis",
    "gaussian_process",
    "calibration",
)
"""Modules of scikit-learn in which a bare class name is looked for."""


@dataclass(kw_only=True, eq=False)
class Sklearn:
    """A classifier with ``fit`` and ``predict_proba``, trained from scratch on the flattened inputs.

    Classes that nobody has labeled yet get probability 0. As long as only one class is labeled, it gets
    probability 1 and the classifier waits. Embeddings are the flattened inputs.

    Parameters
    ----------
    estimator : str
        Name of a class of scikit-learn, ``"LogisticRegression"``, or the full path of any other,
        ``"sklearn.ensemble.RandomForestClassifier"``.
    params : dict, optional
        Its own parameters. Where it has a ``random_state`` that is not given, the run's stream sets it.
    """

    estimator: str = "LogisticRegression"
    params: Mapping[str, Any] | None = None
    provides = frozenset({"probabilities", "embeddings"})
    _model: Any = field(default=None, init=False, repr=False)
    _seen: Tensor | None = field(default=None, init=False, repr=False)
    _n_classes: int = field(default=0, init=False, repr=False)

    def fit(self, labeled: Samples, *, unlabeled: Samples, start: str, generator: torch.Generator) -> None:
        """Train on ``labeled``.

        Raises
        ------
        ConfigError
            There is no such estimator, or it does not take the parameters.
        LearnerError
            The estimator gives no probabilities, refuses the data, or is to start from weights.
        """
        if start != "scratch":
            raise LearnerError(f"learner sklearn begins from scratch at every fit: start cannot be {start!r}")
        if labeled.task != "classification" or labeled.labels is None:
            raise LearnerError("learner sklearn needs samples with one class each")
        model = self._make(generator)
        x = torch.cat([inputs.flatten(1) for inputs, _ in labeled.batches(4096)]).numpy()
        y = labeled.labels.numpy()
        self._n_classes = labeled.n_classes
        self._model, self._seen = None, torch.from_numpy(np.unique(y))
        if len(self._seen) > 1:
            try:
                self._model = model.fit(x, y)
            except (TypeError, ValueError) as error:
                raise LearnerError(f"learner sklearn: {self.estimator} refused the data: {error}") from error
            self._seen = torch.from_numpy(np.asarray(model.classes_, dtype=np.int64))

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return probabilities, float32 ``(n, classes)``, and the flattened inputs as embeddings."""
        if self._seen is None:
            raise LearnerError("learner sklearn has not been fitted yet")
        embeddings = inputs.detach().cpu().flatten(1)
        probabilities = torch.zeros(len(inputs), self._n_classes)
        known: Any = 1.0
        if self._model is not None:
            known = torch.from_numpy(np.asarray(self._model.predict_proba(embeddings.numpy()), dtype=np.float32))
        probabilities[:, self._seen] = known
        return {"probabilities": probabilities, "embeddings": embeddings}

    def _make(self, generator: torch.Generator) -> Any:
        params = dict(self.params or {})
        make = find_estimator(self.estimator)
        try:
            model = make(**params)
        except TypeError as error:
            raise ConfigError(f"learner sklearn: params do not fit {self.estimator}: {error}") from error
        if not hasattr(model, "predict_proba"):
            raise LearnerError(
                f"learner sklearn: {self.estimator} with params {params} has no predict_proba: "
                f"take another estimator, or the option that makes it give probabilities"
            )
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        if "random_state" in model.get_params() and "random_state" not in params:
            model.set_params(random_state=seed)
        return model


def find_estimator(name: str) -> Any:
    """Return the class that ``name`` means.

    Raises
    ------
    ConfigError
        There is none.
    """
    module_name, _, attribute = name.rpartition(".")
    modules = [module_name] if module_name else [f"sklearn.{home}" for home in HOMES]
    for candidate in modules:
        try:
            module = importlib.import_module(candidate)
        except ImportError as error:
            raise ConfigError(f"learner sklearn: estimator {name!r} cannot be imported: {error}") from error
        if hasattr(module, attribute):
            return getattr(module, attribute)
    where = f"module {module_name!r}" if module_name else "scikit-learn; give the full path, package.module.Class"
    raise ConfigError(f"learner sklearn: there is no estimator {attribute!r} in {where}")
