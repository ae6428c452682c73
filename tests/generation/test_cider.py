"""CIDEr-D against numbers worked out by hand."""

import math

import pytest

from fedsplit.generation.cider import cider_d

DOG, CAT = ["a", "dog"], ["a", "cat"]


def test_texts_that_are_their_references_score_their_known_orders() -> None:
    """Cosines of 1 for 1-grams (`a`, which is in both lists, weighs nothing) and 2-grams; no others."""
    assert cider_d([DOG, CAT], [[DOG], [CAT]]) == pytest.approx(10 * 2 / 4)


def test_long_text_that_is_its_reference_scores_ten() -> None:
    one, other = list("abcdef"), list("uvwxyz")
    assert cider_d([one, other], [[one], [other]]) == pytest.approx(10)


def test_text_that_shares_one_of_two_rare_words_scores_half_of_its_first_order() -> None:
    """1-grams: (1, 1, 0) and (1, 0, 1), each times log 2: cosine 1/2. No 2-gram is shared."""
    found = cider_d([["x", "y"], ["q"]], [[["x", "z"]], [["r"]]])
    assert found == pytest.approx(10 * (1 / 2) / 4 / 2)


def test_mean_is_taken_over_references_of_different_numbers() -> None:
    """The first text has cosine 1 in two orders with one of its two references, and none with the other."""
    found = cider_d([DOG, CAT], [[DOG, ["the", "cow"]], [["one"]]])
    assert found == pytest.approx((10 * 2 / 4 / 2 + 0) / 2)


def test_repeated_word_counts_no_more_often_than_the_reference_has_it() -> None:
    """1-grams: `min(2, 1) * 1 / (2 * 1)`, where the norms are of all counts; another length by one word."""
    found = cider_d([["x", "x"], ["q"]], [[["x"]], [["r"]]])
    assert found == pytest.approx(10 * math.exp(-1 / 72) * (1 / 2) / 4 / 2)


def test_text_of_another_length_is_penalised() -> None:
    """1-grams: (1) and (1, 1, 1, 1): `1 / sqrt(4)`, and three words too few."""
    found = cider_d([["x"], ["q"]], [[["x", "y", "z", "w"]], [["r"]]])
    assert found == pytest.approx(10 * math.exp(-9 / 72) * (1 / 2) / 4 / 2)


def test_words_that_more_lists_hold_weigh_less() -> None:
    """Of three lists: `s` is in two, so log(3/2); `x` and `y` are in one, so log 3."""
    common, rare = math.log(3 / 2), math.log(3)
    norms = math.hypot(common, rare) ** 2
    found = cider_d([["s", "y"], ["q"], ["q"]], [[["s", "x"]], [["s"]], [["r"]]])
    assert found == pytest.approx(10 * common**2 / norms / 4 / 3)


@pytest.mark.parametrize("texts", [[[], ["q"]], [["v"], ["q"]]])
def test_text_that_shares_nothing_scores_nothing(texts: list[list[str]]) -> None:
    assert cider_d(texts, [[["x"]], [["r"]]]) == 0


def test_single_text_scores_nothing_for_its_words_are_in_every_list() -> None:
    assert cider_d([DOG], [[DOG]]) == 0
