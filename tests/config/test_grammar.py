"""Values of Python as overrides that Hydra reads back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedsplit.config.overrides import override, parsed
from fedsplit.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"])).filter(lambda text: "${" not in text)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | TEXTS
    | st.text("\\'\"a ,[]{}=:~"),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text("abc_", min_size=1), each, max_size=3),
    max_leaves=6,
)


@given(VALUES)
@example("true")
@example("null")
@example("1e3")
@example("saves/run-1.x")
@example("/my images (2)\\'")
def test_override_of_a_value_is_read_as_this_value(value: object) -> None:
    (read,) = parsed([override("key", value)])
    assert read.value() == value
    assert type(read.value()) is type(value)
    assert not read.is_sweep_override()


def test_values_of_other_libraries_are_written_as_plain_ones() -> None:
    assert override("a", np.float64(0.1)) == "a=0.1"
    assert override("a", np.int64(3)) == "a=3"
    assert override("a", Path("x/y")) == "a=x/y"
    assert override("a", (1, "b c")) == "a=[1,'b c']"
    with pytest.raises(UserError, match="a=b'x': must be None, a truth value, "):
        override("a", b"x")
