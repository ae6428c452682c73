"""Every choice of every group has a case that runs it, as tests are collected; one without is named."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from fedsplit.config.choices import names_of
from fedsplit.deployment.precisions import GROUP, Precision
from tests.data import test_every_combination
from tests.deployment.test_backends import COMPILED, LINEAR, SQNR
from tests.deployment.test_trained_int8 import RUNTIMES
from tests.models import test_model_choices
from tests.tasks.attack.test_attack import ATTACKERS
from tests.test_every_choice import CHOICES, OF_A_TRAINED_RUN, OF_TEXTS, OVER_THE_NETWORK, choices_by_run
from tests.training import test_language_models

ALIKE = {("model", "vgg11"), (GROUP, "qat_int8_pt2e_compiled")}
"""Choices made of the same parts as others that have a case."""
AT_CLIENTS = {("distribution", "own")}
"""Choices that tests/transport/test_own_images.py trains, with clients that bring their images."""


def values(test: Callable[..., None], argument: str) -> Iterator[Any]:
    """What a test is collected with for an argument."""
    for mark in test.pytestmark:  # type: ignore[attr-defined]
        if mark.name != "parametrize":
            continue
        names = [mark.args[0]] if isinstance(mark.args[0], str) else list(mark.args[0])
        if argument in names:
            for case in mark.args[1]:
                found = getattr(case, "values", case if len(names) > 1 else (case,))
                yield found[names.index(argument)]


def collected() -> set[tuple[str, ...]]:
    """Group and name of the choices with a case."""
    models = test_model_choices.test_model_choice_trains_all_weights_in_two_rounds_of_fsl_sage
    pairs = test_every_combination.test_dataset_with_distribution_trains_two_rounds
    trained = {
        each: Precision.by_name(each) for each in names_of(GROUP) if Precision.by_name(each).as_trained
    }
    found: set[tuple[str, ...]] = {each.parts for each in chain.from_iterable(choices_by_run())}
    found |= {("model", choice) for choice in values(models, "choice")}
    found |= {(group, each) for group in ("dataset", "distribution") for each in values(pairs, group)}
    texts = test_language_models.test_model_of_texts_trains_with_an_adapter
    found |= {(group, each) for group in ("model", "adapter") for each in values(texts, group)}
    found |= {("attacker", name) for name in ATTACKERS}
    found |= {(GROUP, name) for name in (*SQNR, *LINEAR, COMPILED)}
    return found | {(GROUP, name) for name, each in trained.items() if each.backend["runtime"] in RUNTIMES}


def test_every_choice_has_a_case_that_runs_it() -> None:
    missing = {each.parts for each in CHOICES} - collected()
    missing -= ALIKE | AT_CLIENTS | OVER_THE_NETWORK | OF_A_TRAINED_RUN | OF_TEXTS
    assert not missing, f"no case runs {', '.join(sorted(map('/'.join, missing)))}"
