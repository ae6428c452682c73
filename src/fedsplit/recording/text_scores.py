"""How near the texts of a model come to their references, in a few numbers."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class TextScores:
    """Scores of a list of texts; the higher, the nearer.

    Args:
        bleu: K. Papineni et al., ACL 2002, of sacrebleu (`tok:13a`, with capitals), 0 to 100.
        chrf: M. Popović, WMT 2015, of sacrebleu (chrF2), 0 to 100.
        rouge_l: F of the longest common subsequence with the nearest reference, of rouge-score without
            stemming, mean over texts, 0 to 1. Source: C.-Y. Lin, 2004.
        nist: G. Doddington, HLT 2002, of nltk, up to 5-grams; 0 and more.
        cider: CIDEr-D, see `fedsplit.generation.cider`, 0 to 10.
        meteor: METEOR score by nltk with the nearest reference, mean over texts, 0 to 1; None where WordNet
            is not there. Source: S. Banerjee and A. Lavie, 2005.
    """

    bleu: float
    chrf: float
    rouge_l: float
    nist: float
    cider: float
    meteor: float | None


SCORES = tuple(field.name for field in fields(TextScores))
SCORE_TITLES = dict(zip(SCORES, ("BLEU", "chrF", "ROUGE-L", "NIST", "CIDEr", "METEOR"), strict=True))
"""Display names of the scores, by field."""
