"""CIDEr-D: n-grams that texts share with their references, weighted by how rare they are."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

_ORDERS = (1, 2, 3, 4)
_SIGMA = 6.0
"""Standard deviation of the penalty for another length, in words."""
Words: TypeAlias = Sequence[str]
Gram: TypeAlias = tuple[str, ...]


def cider_d(texts: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Mean CIDEr-D of texts, from 0 to 10.

    With `g_n(s)` the counts of the n-grams of `s`, each times `log(N / max(d, 1))`, where `d` of the N lists
    of references hold that n-gram, the score of a text `c` with references `s_1, ..., s_m` is the mean over
    n = 1 to 4 of

        10 / m * sum_j exp(-(len(c) - len(s_j))^2 / (2 * 6^2)) * min(g_n(c), g_n(s_j)) . g_n(s_j)
                       / (|g_n(c)| * |g_n(s_j)|)

    Source: R. Vedantam, C. L. Zitnick and D. Parikh, "CIDEr: Consensus-based Image Description Evaluation",
    CVPR 2015, section 7, with counts for term frequencies and without stemming, as pycocoevalcap has it.

    Args:
        texts: words of each text.
        references: words of the references of each text, at least one.
    """
    lists = Counter(gram for own in references for gram in set().union(*map(_counts, own)))
    rarity = {gram: math.log(len(texts) / count) for gram, count in lists.items()}
    found = []
    for text, own in zip(texts, references, strict=True):
        weights = _weights(text, rarity, len(texts))
        for reference in own:
            penalty = math.exp(-((len(text) - len(reference)) ** 2) / (2 * _SIGMA**2))
            cosines = map(_clipped_cosine, weights, _weights(reference, rarity, len(texts)))
            found.append(10 * penalty * math.fsum(cosines) / len(_ORDERS) / len(own))
    return math.fsum(found) / len(texts)


def _counts(words: Words) -> Counter[Gram]:
    """Count of each n-gram of all orders."""
    return Counter(tuple(words[i : i + n]) for n in _ORDERS for i in range(len(words) - n + 1))


def _weights(words: Words, rarity: Mapping[Gram, float], texts: int) -> list[dict[Gram, float]]:
    """The weighted counts of the n-grams of each order; what no reference holds is as rare as can be."""
    found: list[dict[Gram, float]] = [{} for _ in _ORDERS]
    for gram, count in _counts(words).items():
        found[len(gram) - 1][gram] = count * rarity.get(gram, math.log(texts))
    return found


def _clipped_cosine(own: Mapping[Gram, float], other: Mapping[Gram, float]) -> float:
    """The cosine of two vectors, of which the first counts no further than the second."""
    norms = math.hypot(*own.values()) * math.hypot(*other.values())
    shared = math.fsum(min(own.get(gram, 0.0), value) * value for gram, value in other.items())
    return shared / norms if norms else 0.0
