"""How near texts come to their references."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from nltk.corpus import wordnet
from nltk.translate.meteor_score import meteor_score
from nltk.translate.nist_score import corpus_nist
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from fedsplit.generation.cider import cider_d
from fedsplit.generation.words import words_of
from fedsplit.machine.terminal import note
from fedsplit.recording.text_scores import TextScores


def score(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextScores:
    """Scores of texts against all their references.

    Args:
        texts: texts to score, at least one.
        references: references of each text, at least one; they may be of different numbers.
    """
    most = max(map(len, references))
    columns: Any = [[own[i] if i < len(own) else None for own in references] for i in range(most)]
    words = words_of(texts)
    reference_words = [words_of(own) for own in references]
    return TextScores(
        bleu=BLEU().corpus_score(texts, columns).score,
        chrf=CHRF().corpus_score(texts, columns).score,
        rouge_l=_rouge_l(texts, references),
        nist=_nist(words, reference_words),
        cider=cider_d(words, reference_words),
        meteor=_meteor(words, reference_words),
    )


def _rouge_l(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    scorer = RougeScorer(
        ["rougeL"], tokenizer=DefaultTokenizer(use_stemmer=False)
    )  # else absl sets up logging
    pairs = zip(texts, references, strict=True)
    return fmean(scorer.score_multi(own, text)["rougeL"].fmeasure for text, own in pairs)


def _nist(texts: list[list[str]], references: list[list[list[str]]]) -> float:
    """NIST; n-grams longer than every text give nothing, where nltk would divide by their number."""
    longest = min(5, max(map(len, texts)))
    return float(corpus_nist(references, texts, longest)) if longest else 0.0


def _meteor(texts: list[list[str]], references: list[list[list[str]]]) -> float | None:
    try:
        wordnet.ensure_loaded()
    except LookupError:
        note("METEOR is left out: nltk finds no WordNet; python -m nltk.downloader wordnet fetches it")
        return None
    return fmean(meteor_score(own, text) for text, own in zip(texts, references, strict=True))
