import math
from types import SimpleNamespace

import pytest

from fedsplit.generation import scores
from fedsplit.generation.scores import score
from fedsplit.generation.words import words_of

TEXTS = ["the cat sat on the mat", "one dog"]
REFERENCES = [["a cat sat on the mat", "the cat is here"], ["two dogs bark"]]


class NoSynonyms:
    """A WordNet in which no word has a meaning: METEOR then goes by equal words and stems."""

    def ensure_loaded(self) -> None: ...

    def synsets(self, word: str) -> list[SimpleNamespace]:
        return []


def test_words_are_in_small_letters_and_punctuation_is_words_too() -> None:
    assert words_of(["The Mill's £20-25, (yes)."]) == [
        ["the", "mill's", "£20", "-", "25", ",", "(", "yes", ")", "."]
    ]


def test_texts_that_are_a_reference_have_the_best_scores() -> None:
    found = score(
        ["The cat sat on the mat.", "A dog barked all night."],
        [
            ["Something else.", "The cat sat on the mat."],
            ["A dog barked all night."],
        ],
    )
    assert (found.bleu, found.chrf, found.rouge_l) == (pytest.approx(100), pytest.approx(100), 1)


def test_texts_that_share_nothing_with_references_score_nothing() -> None:
    found = score(["xx"], [["qq rr ss tt"]])
    assert (found.bleu, found.chrf, found.rouge_l, found.nist, found.cider) == (0, 0, 0, 0, 0)


def test_empty_texts_score_nothing() -> None:
    found = score(["", ""], [["a b"], ["c"]])
    assert (found.bleu, found.chrf, found.rouge_l, found.nist, found.cider) == (0, 0, 0, 0, 0)


def test_bleu_is_the_geometric_mean_of_precisions_against_all_references() -> None:
    """`the`s are clipped to two: the second reference is needed. 8 words of 8, no brevity."""
    texts, references = ["the cat sat on the mat by it"], [["a cat sat on the mat by it", "the the dog"]]
    precisions = [8 / 8, 6 / 7, 5 / 6, 4 / 5]
    assert score(texts, references).bleu == pytest.approx(100 * math.prod(precisions) ** 0.25)


def test_rouge_l_is_the_f_measure_with_the_nearest_reference() -> None:
    """`cat sat on the mat` of 6 and 6 words; nothing of `two dogs bark`."""
    assert score(TEXTS, REFERENCES).rouge_l == pytest.approx((5 / 6 + 0) / 2)


def test_nist_is_the_information_of_shared_words() -> None:
    """Of 4 words in references, `b` and `c` are one each: log2(4) bits; `b` alone is found, in 2 words."""
    assert score(["b x"], [["b c", "d e"]]).nist == pytest.approx(math.log2(4) / 2)


def test_nist_of_two_words_goes_without_longer_n_grams() -> None:
    """Both words log2(2) = 1 bit; the pair, of which there is one behind its only `a`, none."""
    assert score(["a b"], [["a b"]]).nist == pytest.approx(1 + 0)


def test_meteor_is_left_out_in_one_line_without_wordnet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise LookupError

    monkeypatch.setattr(scores, "wordnet", SimpleNamespace(ensure_loaded=missing))
    assert score(TEXTS, REFERENCES).meteor is None
    assert capsys.readouterr().err.count("\n") == 1


def test_meteor_of_a_reference_is_one_less_the_penalty_of_its_one_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F is 1; the penalty 0.5 * (1 chunk / 6 words)^3."""
    monkeypatch.setattr(scores, "wordnet", NoSynonyms())
    found = scores._meteor(words_of(TEXTS[:1]), [words_of(TEXTS[:1])])
    assert found == pytest.approx(1 - 0.5 / 6**3)


def test_scores_are_the_same_for_references_in_any_order() -> None:
    mirrored = [own[::-1] for own in REFERENCES]
    assert score(TEXTS, REFERENCES) == score(TEXTS, mirrored)
