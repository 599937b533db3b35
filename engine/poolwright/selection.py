"""One selection from arrays: a session without rounds, for those who hold embeddings and want ids now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .catalog import Catalog
from .checks import check_finite
from .composition import Part, Roles
from .contract import Member, declared_needs
from .dataset import Dataset, TensorSplit
from .errors import ConfigError
from .events import Listener, ignore
from .hookspecs import LEARNER_NEEDS
from .kernels._matrix import as_tensor
from .pool import as_ids
from .rows import Rows
from .session import Session


def select(
    features: Any,
    k: int,
    strategy: str | Callable[..., Any] = "coreset",
    *,
    labeled: Any = None,
    labels: Any = None,
    probabilities: Any = None,
    params: Mapping[str, Any] | None = None,
    learner: str = "linear",
    seed: int = 0,
    memory_limit: int | None = None,
    listener: Listener = ignore,
    catalog: Catalog | None = None,
) -> Any:
    """Select the ``k`` samples of a pool that are worth labelling next.

    Parameters
    ----------
    features : array or Tensor
        Floating point ``(n, d)``: an embedding of every sample; the strategy sees it as ``embeddings``. float32 is
        read where it lies, a writable memory map (``mmap_mode="c"``) too; other types are converted, in a copy.
    k : int
        How many ids to select.
    strategy : str or class
        An installed strategy, or a class of your own.
    labeled : array of int, optional
        Ids that are labeled already.
    labels : array of int, optional
        ``(n,)``, one class a sample, -1 where unknown. Without ``labeled`` it also says who is labeled. A strategy
        that needs probabilities gets them from ``learner``, fitted on the labeled features.
    probabilities : array or Tensor, optional
        ``(n, classes)``, of a model of your own.
    params : dict, optional
        Parameters of the strategy.
    learner : str
        Fitted on ``features`` and ``labels`` where the strategy needs a learner and ``probabilities`` are not given.
    seed : int
    memory_limit : int, optional
        Bytes that one matrix may take.

    Returns
    -------
    array or Tensor
        int64 ``(k,)``, in the order of the selection; a tensor where ``features`` is one, else numpy.

    Raises
    ------
    ConfigError, PoolError, DatasetError, PluginError
        Shapes that do not fit, NaN, k beyond the unlabeled, a strategy that needs what was not given.

    Examples
    --------
    >>> ids = select(embeddings, k=1000, strategy="coreset", labeled=ids_so_far)
    """
    catalog = catalog or Catalog()
    x = _matrix(features, "features")
    n = len(x)
    given = {"embeddings": x}
    if probabilities is not None:
        given["probabilities"] = _probabilities(_matrix(probabilities, "probabilities", rows=n))
    known = _labels(labels, n)
    initial = _labeled(labeled, known, n)
    part = Part(strategy, dict(params or {}))
    if not 0 <= k <= n - len(initial):
        raise ConfigError(f"k = {k}, but {n - len(initial)} samples are unlabeled: choose k between 0 and that")
    wants = _needs(part, catalog)
    missing = sorted((wants & (LEARNER_NEEDS | {"learner"})) - set(given))
    if missing and known is not None and not len(initial):
        raise ConfigError(f"strategy {part.name!r} needs {missing[0]}, but no sample is labeled to fit a learner on")
    if (missing or "labels" in wants) and known is None:
        what = missing[0] if missing else "labels"
        raise ConfigError(
            f"strategy {part.name!r} needs {what}: give "
            + ("probabilities (--probabilities P.npy), or " if what == "probabilities" else "")
            + "labels (--labels Y.npy, -1 where unknown)"
            + (" to fit a learner on" if missing else "")
        )
    dataset = _Arrays(x, known, given.get("probabilities"))

    session = Session(
        dataset,
        learner=learner if missing else None,
        strategy=Roles(name=part),
        budget=k,
        initial=initial if len(initial) else None,
        seed=seed,
        report=False,
        memory_limit=memory_limit,
        given=given,
        listener=listener,
        catalog=catalog,
        label=part.name,
    )
    if len(initial):
        session.tell(initial, dataset.pool.labels(initial))
    ids = session.advance() if k else None
    chosen = torch.empty(0, dtype=torch.int64) if ids is None else ids
    return chosen if isinstance(features, Tensor) else chosen.numpy()


class _Arrays(Dataset):
    """Features as a data set."""

    task = "classification"

    def __init__(self, x: Tensor, labels: Tensor | None, probabilities: Tensor | None) -> None:
        known = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
        n_classes = max(2, int(known.max()) + 1 if len(known) else 0)
        if probabilities is not None:
            n_classes = max(n_classes, probabilities.shape[1])
        self.classes = [str(label) for label in range(n_classes)]
        self.pool = TensorSplit(x, known)
        self.features = Rows(x)
        self.test = TensorSplit(x[:0], known[:0])

    def load(self) -> None:
        """Nothing is to be read."""


def _needs(part: Part, catalog: Catalog) -> frozenset[str]:
    """Return what a strategy reads, so that it is known what must be given."""
    instance, distribution = catalog.build("strategy", part.plugin, part.params)
    return declared_needs(Member(part.name, "strategy", distribution, instance, frozenset()))


def _matrix(array: Any, what: str, rows: int | None = None) -> Tensor:
    tensor = array.detach() if isinstance(array, Tensor) else as_tensor(np.asarray(array))
    if tensor.ndim != 2 or not (tensor.is_floating_point() or tensor.dtype == torch.uint8):
        raise ConfigError(f"{what} must be a floating point matrix (n, d), not {tensor.dtype} {tuple(tensor.shape)}")
    if rows is not None and len(tensor) != rows:
        raise ConfigError(f"{what} has {len(tensor)} rows, but features has {rows}: give one row a sample")
    tensor = tensor.float()
    check_finite(tensor, what)
    return tensor


def _probabilities(p: Tensor) -> Tensor:
    """Refuse what are no probabilities, such as logits."""
    wrong = (p < 0).any(1) | ((p.sum(1) - 1).abs() > 1e-3)
    if wrong.any():
        raise ConfigError(
            f"probabilities: {int(wrong.sum())} of {len(p)} rows are negative or do not sum to 1, the first is id "
            f"{int(wrong.nonzero()[0])}: give softmax(logits), not logits"
        )
    return p


def _labels(labels: Any, n: int) -> Tensor | None:
    if labels is None:
        return None
    tensor = as_ids(labels, "labels")
    if len(tensor) != n:
        raise ConfigError(f"labels has {len(tensor)} entries, but features has {n} rows: give one a sample, -1 unknown")
    if len(tensor) and int(tensor.min()) < -1:
        first = int((tensor < -1).nonzero()[0])
        raise ConfigError(f"labels: {int(tensor[first])} at id {first} is no class: number classes from 0, -1 unknown")
    return tensor


def _labeled(labeled: Any, labels: Tensor | None, n: int) -> Tensor:
    if labeled is None:
        return torch.empty(0, dtype=torch.int64) if labels is None else (labels >= 0).nonzero().squeeze(1)
    ids = as_ids(labeled, "labeled")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < n:
        wrong = ids[(ids < 0) | (ids >= n)]
        raise ConfigError(f"labeled: {int(wrong[0])} is not an id of this pool (0..{n - 1})")
    if labels is not None and (labels[ids] < 0).any():
        first = ids[labels[ids] < 0][0]
        raise ConfigError(f"labeled: id {int(first)} is named, but its label is -1 (unknown)")
    unique: Tensor = ids.unique()
    return unique
