"""Values of Python as overrides that Hydra reads back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedsplit.config.compose import compose_config, composing, plain
from fedsplit.config.overrides import override, parse_overrides, spell_out
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
    (read,) = parse_overrides([override("key", value)])
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


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        (
            "tiny_gpt2",
            ["model.sizes.resid_pdrop=0"],
            {"n_layer": 2, "n_embd": 64, "n_head": 2, "resid_pdrop": 0},
        ),
        ("tiny_gpt2", ["model.sizes={n_embd: 8, a: 1}"], {"n_layer": 2, "n_embd": 8, "n_head": 2, "a": 1}),
        ("causal_lm", ["model.sizes.a=1", "model.sizes.b=2"], {"a": 1, "b": 2}),
    ],
)
def test_sizes_of_a_model_take_keys_that_no_file_names(
    model: str, given: list[str], expected: dict[str, int]
) -> None:
    overrides = [each for text in (f"model={model}", *given) for each in spell_out(text)]
    with composing():
        assert plain(compose_config(overrides))["model"]["sizes"] == expected
