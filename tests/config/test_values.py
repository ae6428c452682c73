from typing import Any, Literal

import pytest

from fedsplit.config.values import (
    BelowOne,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    describe_allowed,
    fits,
)

Names = Literal["left", "right"]


@pytest.mark.parametrize(
    ("annotation", "accepted", "refused"),
    [
        (PositiveInt, [1, 10**12], [0, -1, 1.0, True, "1", None, [1]]),
        (NonNegativeInt, [0, 7], [-1, 0.0, False, None]),
        (
            PositiveFloat,
            [1e-300, 1, 2.5, 3.4e38],
            [0, 0.0, -1e-9, float("inf"), float("nan"), "1", True, None],
        ),
        (PositiveFloat, [10**38], [3.5e38, 1e39, 10**39, 10**400, -float("inf")]),
        (NonNegativeFloat, [0, 0.0, 3, 3.4e38], [-1e-9, float("nan"), float("inf"), 3.5e38, None]),
        (Fraction, [0, 0.5, 1, 1.0], [-1e-9, 1.0000001, float("nan"), None]),
        (BelowOne, [0, 0.999], [1, 1.0, -0.1, None]),
        (PositiveInt | None, [None, 3], [0, 2.5, "null"]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "text"], [1, None, ["text"]]),
        (str | None, [None, "text"], [1]),
        (int, [0, -3], [1.0, True, "1"]),
        (float, [0, -2.5, 3.4e38, -3.4e38], [float("inf"), -float("inf"), float("nan"), -1e39, False, "0"]),
        (PositiveFloat | None, [None, 0.5], [float("inf"), float("nan"), 1e39, 0]),
        (list[float], [[0.5, -3.4e38]], [[0.5, float("nan")], [float("inf")], [1e39]]),
        (Names, ["left", "right"], ["up", "", None]),
        (list[PositiveInt], [[], [1, 2], (3,)], [[0], [1, "2"], 1, "12", None]),
        (tuple[BelowOne, BelowOne], [[0.9, 0.99], (0, 0)], [[0.9], [0.9, 0.9, 0.9], [0.9, 1.0], 0.9]),
        (tuple[PositiveInt, ...], [[], [1], [1, 2, 3]], [[0], 5]),
    ],
)
def test_value_fits_an_annotation_exactly_where_type_and_range_allow_it(
    annotation: Any, accepted: list[object], refused: list[object]
) -> None:
    assert [value for value in accepted if not fits(annotation, value)] == []
    assert [value for value in refused if fits(annotation, value)] == []


@pytest.mark.parametrize("annotation", [None, object, "Images", Any])
@pytest.mark.parametrize("value", [{"a": 1}, "text", 1])
def test_annotation_of_no_plain_type_accepts_every_plain_value(annotation: Any, value: object) -> None:
    if annotation is None:
        assert not fits(annotation, value)  # None is the annotation of null itself
    else:
        assert fits(annotation, value)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (PositiveInt, "a whole number greater than 0"),
        (PositiveInt | None, "a whole number greater than 0 or null"),
        (Names, "one of left, right"),
        (list[Fraction], "a list, each a number from 0 to 1"),
        (bool, "true or false"),
        (str, "a text"),
    ],
)
def test_annotation_is_described_by_its_allowed_values(annotation: Any, words: str) -> None:
    assert describe_allowed(annotation) == words
