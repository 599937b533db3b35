"""ActiveFT: samples that are spread as a pool is, found by moving centers through feature space."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from poolwright import ConfigError, Cycle, Rows, hookimpl

from ..learners.base import is_number

BLOCK_BYTES = 2**24
"""A block of similarities. It does not depend on ``memory_limit``, or sums would be rounded in another order."""


class UnitRows:
    """The rows of a matrix at length 1, float32, block by block; rows of zeros stay zeros.

    Where half of the matrix's ``memory_limit`` has room for all of them, and half of what a CUDA device has free, they
    are read once and kept.

    Parameters
    ----------
    x : Rows
        Floating point ``(n, d)``.
    step : int
        Rows of a block.
    device : str or torch.device
        Where they come out.
    """

    def __init__(self, x: Rows, step: int, device: str | torch.device) -> None:
        self.shape = x.shape
        self._x = x
        self._step = step
        self._device = torch.device(device)
        room = x.memory_limit // 2
        if self._device.type == "cuda":
            room = min(room, torch.cuda.mem_get_info(self._device)[0] // 2)
        self._kept: Tensor | None = None
        if 4 * math.prod(x.shape) <= room:
            kept = torch.empty(x.shape, device=self._device)
            for start, block in self._read():
                kept[start : start + len(block)] = block
            self._kept = kept

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first row, block)``."""
        if self._kept is None:
            yield from self._read()
        else:
            for start in range(0, len(self._kept), self._step):
                yield start, self._kept[start : start + self._step]

    def take(self, rows: Tensor) -> Tensor:
        """Return the rows ``rows``, int64 on the CPU."""
        return self._unit(self._x[rows])

    def _read(self) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(self._x), self._step):
            yield start, self._unit(self._x[start : start + self._step])

    def _unit(self, block: Tensor) -> Tensor:
        return F.normalize(block.to(self._device, torch.float32), dim=1)


def attraction(x: UnitRows, centers: Tensor) -> tuple[float, Tensor]:
    """Return the mean similarity of the rows to their nearest center, and its gradient in the centers.

    Parameters
    ----------
    x : UnitRows
        ``(n, d)``.
    centers : Tensor
        float32 ``(k, d)``, of length 1.

    Returns
    -------
    mean : float
        Of max_j f_i . c_j over the rows f_i.
    gradient : Tensor
        float32 ``(k, d)``: the sum of the rows that are nearest to each center, over n.
    """
    n = x.shape[0]
    total = torch.zeros((), dtype=torch.float64, device=centers.device)
    sums = torch.zeros_like(centers)
    for _, block in x.blocks():
        similarity, nearest = (block @ centers.T).max(1)
        total += similarity.double().sum()
        sums.index_add_(0, nearest, block)
    return float(total) / n, sums / n


def repulsion(moving: Tensor, fixed: Tensor, temperature: float) -> tuple[float, Tensor]:
    """Return how close the moving centers are to all others, and its gradient in the moving ones.

    The mean over the moving centers c_j of log sum_{k != j} exp(c_j . c_k / temperature), k over moving and fixed ones.

    Parameters
    ----------
    moving, fixed : Tensor
        float32 ``(k, d)`` and ``(m, d)``, of length 1; ``k + m`` at least 2.
    temperature : float
        Above 0.

    Returns
    -------
    mean : float
    gradient : Tensor
        float32 ``(k, d)``.
    """
    k = len(moving)
    others = torch.cat([moving, fixed])
    total = torch.zeros((), dtype=torch.float64, device=moving.device)
    gradient = torch.zeros_like(moving)
    step = max(1, BLOCK_BYTES // (4 * len(others)))
    for start in range(0, k, step):
        some = moving[start : start + step]
        similarity = some @ others.T / temperature
        similarity.diagonal(start).fill_(-torch.inf)
        log_sums = similarity.logsumexp(1)
        total += log_sums.double().sum()
        shares = (similarity - log_sums[:, None]).exp()
        gradient[start : start + len(some)] += shares @ others
        gradient += shares[:, :k].T @ some
    return float(total) / k, gradient / (k * temperature)


def along_sphere(gradient: Tensor, theta: Tensor) -> Tensor:
    """Return the gradient in theta ``(k, d)`` of what has ``gradient`` in c = theta / ||theta||."""
    length = theta.norm(dim=1, keepdim=True).clamp(min=1e-12)
    centers = theta / length
    return (gradient - (gradient * centers).sum(1, keepdim=True) * centers) / length


def nearest_distinct(x: UnitRows, centers: Tensor) -> Tensor:
    """Return for each center a row of its own: the most similar one.

    A row that is the most similar one to several centers goes to that which it is most similar to; the others take
    the most similar of what is left. Equal similarities go to the lowest row and the lowest center.

    Parameters
    ----------
    x : UnitRows
        ``(n, d)``, ``n`` at least ``k``.
    centers : Tensor
        float32 ``(k, d)``, of length 1.

    Returns
    -------
    Tensor
        int64 ``(k,)``, all different.
    """
    picks = torch.full((len(centers),), -1, dtype=torch.int64)
    taken = torch.zeros(x.shape[0], dtype=torch.bool, device=centers.device)
    while len(waiting := (picks < 0).nonzero().squeeze(1)):
        best = torch.full((len(waiting),), -torch.inf, device=centers.device)
        rows = torch.zeros(len(waiting), dtype=torch.int64, device=centers.device)
        wanted = centers[waiting.to(centers.device)]
        for start, block in x.blocks():
            similarity = wanted @ block.T
            similarity[:, taken[start : start + len(block)]] = -torch.inf
            values, places = similarity.max(1)
            better = values > best
            best = torch.where(better, values, best)
            rows = torch.where(better, places + start, rows)
        order = best.sort(descending=True, stable=True).indices.tolist()
        wished = rows.tolist()
        given: set[int] = set()
        for position in order:
            if wished[position] not in given:
                given.add(wished[position])
                picks[waiting[position]] = wished[position]
        taken[torch.tensor(sorted(given), device=taken.device)] = True
    return picks


class ActiveFT:
    """Active finetuning: pick samples whose features are spread as the pool's, and far from each other.

    Meant for the first labels of a pretrained network (``[initial] strategy = "activeft"``, with the data set's own
    features or the embeddings of ``[initial] learner``): one selection of the whole budget, without labels. Centers
    begin at random samples, on the unit sphere, and go down along

        - mean_i max_j f_i . c_j / tau + balance mean_j log sum_{k != j} exp(c_j . c_k / tau)

    by Adam: each sample pulls the center that is most similar to it, and the centers push each other apart. Then each
    center gives the sample that is most similar to it; all of them are different.

    In later cycles, as an ordinary ``select``, what is labeled or asked already takes part as centers that do not move,
    which the paper, having one cycle, leaves open. The authors' code takes another loss than the paper's equation: the
    cross entropy of a sample's nearest center against how close that one is to all centers, itself included. The
    paper's is taken here. Their code gives a sample that several centers want to the first of them; here it goes to the
    one that it is most similar to.

    Memory: the centers, and 16 MiB blocks; features are read in blocks in every iteration, or copied once (``n x d``
    float32) where half of ``memory_limit`` has room for that. Time: O(n d (labeled + budget)) an iteration.

    Logged by iteration: ``loss``, and ``similarity``, the mean of a sample to its nearest center.

    Source: Xie, Lu, Yan, Yang, Tomizuka and Zhan, *Active Finetuning: Exploiting Annotation Budget in the
    Pretraining-Finetuning Paradigm*, CVPR 2023; what selects the first 1 % in BRAL-T's section 5.3.

    Parameters
    ----------
    temperature : float
        tau, above 0.
    balance : float
        Weight of the centers' repulsion, 0 or more.
    lr : float
        Learning rate of Adam.
    iterations : int
        Steps, each over the whole pool.
    """

    needs = frozenset({"embeddings"})

    def __init__(
        self, *, temperature: float = 0.07, balance: float = 1.0, lr: float = 1e-3, iterations: int = 300
    ) -> None:
        self.temperature = temperature
        self.balance = balance
        self.lr = lr
        self.iterations = iterations

    @hookimpl
    def select(self, cycle: Cycle, budget: int) -> Tensor:
        """Return ``budget`` ids, one a center.

        Raises
        ------
        ConfigError
            A parameter cannot be used, or features are NaN or infinite.
        """
        self._check()
        unlabeled = cycle.pool.unlabeled
        if budget <= 0 or len(unlabeled) <= budget:
            return unlabeled[: max(0, budget)]
        known = torch.cat([cycle.pool.labeled, cycle.pool.asked])
        rows = cycle.rows("embeddings")
        step = max(1, min(BLOCK_BYTES, rows.memory_limit // 4) // (4 * (budget + len(known) + rows.shape[1])))
        x = UnitRows(rows, step, cycle.device)
        theta = x.take(torch.randperm(len(unlabeled), generator=cycle.generator)[:budget])
        fixed = theta[:0]
        if len(known):
            fixed = UnitRows(cycle.rows("embeddings", known), step, cycle.device).take(torch.arange(len(known)))
        return unlabeled[nearest_distinct(x, self._centers(cycle, x, theta, fixed))]

    def _centers(self, cycle: Cycle, x: UnitRows, theta: Tensor, fixed: Tensor) -> Tensor:
        """Return where the centers come to lie, from ``theta`` on, float32 ``(k, d)`` of length 1."""
        optimizer = torch.optim.Adam([theta], lr=self.lr)
        k = len(theta)
        for _ in cycle.progress(range(self.iterations), "moving centers"):
            moving = F.normalize(theta, dim=1)
            similarity, pull = attraction(x, torch.cat([moving, fixed]))
            loss, gradient = -similarity / self.temperature, -pull[:k] / self.temperature
            if len(theta) + len(fixed) > 1:
                closeness, push = repulsion(moving, fixed, self.temperature)
                loss, gradient = loss + self.balance * closeness, gradient + self.balance * push
            if not math.isfinite(loss):
                raise ConfigError(
                    "activeft: embeddings hold NaN or infinity (or lr or balance is too large): look at the features"
                )
            cycle.log("loss", loss)
            cycle.log("similarity", similarity)
            theta.grad = along_sphere(gradient, theta)
            optimizer.step()
        return F.normalize(theta, dim=1)

    def _check(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        for name, fits, range_ in (
            ("temperature", is_number(self.temperature) and self.temperature > 0, "above 0"),
            ("balance", is_number(self.balance) and self.balance >= 0, "0 or more"),
            ("lr", is_number(self.lr) and self.lr > 0, "above 0"),
        ):
            if not fits:
                raise ConfigError(f"activeft: {name} must be a number, {range_}, not {getattr(self, name)!r}")
        if not isinstance(self.iterations, int) or isinstance(self.iterations, bool) or self.iterations < 1:
            raise ConfigError(f"activeft: iterations must be an integer of at least 1, not {self.iterations!r}")
