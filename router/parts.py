"""Samples that are said to be of one task: their evidence is summed, and split where it contradicts that.

With the log likelihoods s_bt of a pool's samples b, their task is `argmax_t sum over b of s_bt`. Whether they
are of one task is a question of model selection, one task against a mixture of several. Let task t take k of
the n samples over from the tasks c_b that they have. That gains

    gain_t = max over k < n of  (sum of the k largest s_bt - s_b,c_b)  -  n H(k / n),

where H is the entropy of a share in nats: n H is what it takes to say which samples are the other task's. It
makes a pool that mostly agrees the surer to stay whole. Where samples have weights, sums of them take the
place of counts. While a gain is at least CONTRADICTION, the task that gains most gets its samples, and every
part is judged anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.router.prior import Prior, Remembered
from mass_serve.router.selection import pooled

# In nats: who says that inputs are of one task is believed until their evidence is e^10 to one against it,
# for single inputs are surer of a wrong task than they should be. Chosen on the `tuning` part of the suites
# that `python -m benchmarks.groups` measures: with 8, almost twice as many that are of one task are split.
CONTRADICTION = 10.0


@dataclass(frozen=True)
class Parts:
    """The parts that B samples are judged in, each of one task."""

    # [B] int64, within the sample's pool: 0 is the part of the newest sample that is remembered, or else of
    # the pool's first.
    numbers: Tensor
    gains: Tensor  # [B] float32: what the best split of the sample's pool gains; -inf of one by itself
    together: Tensor  # [B] int64: numbers that samples of one part, and no others, share
    remembered: Tensor | None  # [B, T] float32: the weighted sum of what is remembered of the part

    def summed(self, evidence: Tensor) -> Tensor:
        """Evidence [B, T] with the sum over its part in place of each row."""
        own = pooled(evidence, self.together)
        return own if self.remembered is None else own + self.remembered


def parts_of(evidence: Tensor, prior: Prior | None) -> Parts:
    """The parts by evidence [B, T], which is -inf for the tasks that are no candidates of a pool."""
    samples = len(evidence)
    numbers, together = torch.zeros(samples, dtype=torch.int64), torch.arange(samples)
    gains = torch.full((samples,), -torch.inf)
    remembered = torch.zeros_like(evidence) if prior is not None and prior.remembered else None
    for pool, rows in ({} if prior is None else prior.members()).items():
        earlier = None if prior is None else prior.remembered.get(pool)
        if len(rows) == 1 and earlier is None:
            continue
        parts, gains[rows] = _split_pool(evidence[rows], earlier)
        firsts: dict[int, int] = {}
        for row, part in zip(rows, parts[len(parts) - len(rows) :].tolist(), strict=True):
            numbers[row], together[row] = part, firsts.setdefault(part, row)
            if earlier is not None and remembered is not None:
                own = parts[: len(earlier)] == part
                remembered[row] = (earlier.weights[own].unsqueeze(1) * earlier.evidence[own]).sum(0)
    return Parts(numbers, gains, together, remembered)


def _split_pool(evidence: Tensor, earlier: Remembered | None) -> tuple[Tensor, float]:
    """The part of each sample of a pool, those that are remembered first, and what the best split gains."""
    if earlier is None:
        parts, gain = split(evidence, torch.ones(len(evidence)))
        return _numbered_from(parts, 0), gain
    weights = torch.cat([earlier.weights, torch.ones(len(evidence))])
    parts, gain = split(torch.cat([earlier.evidence, evidence]), weights)
    return _numbered_from(parts, len(earlier) - 1), gain


def _numbered_from(parts: Tensor, first: int) -> Tensor:
    """The same parts with other numbers, from 0: that of sample `first`, then as they come behind it."""
    order = dict.fromkeys([*parts[first:].tolist(), *parts.tolist()])
    renamed = {part: number for number, part in enumerate(order)}
    return torch.tensor([renamed[part] for part in parts.tolist()])


def split(evidence: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """The parts [n] int64 of samples with evidence [n, T] and weights [n], and what the first split gains.

    The gain of a split that was not made is below CONTRADICTION; it may be negative.
    """
    weighted = weights.unsqueeze(1) * evidence
    tasks = weighted.sum(0).argmax().expand(len(weights)).clone()  # [n]: that each sample has
    first_gain = -torch.inf
    for number in range(len(weights) - 1):
        gain, other, moved = _best_move(weighted, weights, tasks)
        if number == 0:
            first_gain = gain
        if not gain >= CONTRADICTION:  # neither does a NaN
            break
        before = len({*tasks.tolist()})
        tasks[moved] = other
        tasks = _judged_anew(weighted, tasks)
        if len({*tasks.tolist()}) <= before:  # the parts found themselves to be of tasks that were there
            break
    return tasks, first_gain


def _best_move(weighted: Tensor, weights: Tensor, tasks: Tensor) -> tuple[float, int, Tensor]:
    """The largest gain, the task that has it, and the samples that this takes over."""
    ahead, order = (weighted - weighted.gather(1, tasks.unsqueeze(1))).sort(
        dim=0, descending=True, stable=True
    )
    total = weights.sum()
    share = (weights[order].cumsum(0) / total)[:-1].clamp(max=1.0)  # [n - 1, T]
    entropy = -torch.xlogy(share, share) - torch.xlogy(1 - share, 1 - share)
    gains = ahead.cumsum(0)[:-1] - total * entropy
    task = int(gains.amax(0).argmax())
    count = int(gains[:, task].argmax()) + 1
    return float(gains[count - 1, task]), task, order[:count, task]


def _judged_anew(weighted: Tensor, tasks: Tensor) -> Tensor:
    """The task [n] of each sample's part, the one with the most evidence of all in it."""
    result = tasks.clone()
    for task in {*tasks.tolist()}:
        own = tasks == task
        result[own] = weighted[own].sum(0).argmax()
    return result
