"""Top-k with some randomness, so that values which are rarely large are seen too."""

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import Fraction, Share
from fedsplit.quant.codecs.topk import TopK
from fedsplit.randomness import uniform


class RandTopK(TopK):
    """Random `TopK`: each of the k values of a sample is, with probability `alpha`, not of the k largest.

    Payload as of `TopK`. Error: at most the value.

    Source: F. Zheng et al., "Reducing Communication for Split Learning by Randomized Top-k
    Sparsification", 2023.

    Args:
        fraction: fraction of the values that are kept, at least one of each sample.
        alpha: probability to choose among the others.
    """

    def __init__(self, *, fraction: Share, alpha: Fraction = 0.1) -> None:
        super().__init__(fraction=fraction)
        self.alpha = alpha

    @override
    def select_places(self, rows: Tensor, seed: int) -> Tensor:
        count, length, k = self.rows_of(rows.shape)
        draws = uniform(torch.Size((count, k + length)), seed).to(rows.device)
        random_count = (draws[:, :k] < self.alpha).sum(1, keepdim=True).clamp_max(length - k)
        largest = torch.zeros_like(rows, dtype=torch.bool)
        largest.scatter_(1, super().select_places(rows, seed), True)
        # in random order the largest come first; keep of them all but `others`, then others
        order = (draws[:, k:] + ~largest).argsort(1)
        ranks = torch.arange(k, device=rows.device)
        places = torch.where(ranks < k - random_count, ranks, ranks + random_count)
        return order.gather(1, places)

    @override
    def bound(self, x: Tensor) -> Tensor:
        return x.double().abs()
