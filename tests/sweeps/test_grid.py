"""What a sweep stands for is compared with the product written out."""

from itertools import product

import pytest

from fedsplit.config.compose import composing
from fedsplit.config.overrides import spell_out
from fedsplit.errors import UserError
from fedsplit.sweeps.grid import jobs


def expanded(*overrides: str) -> list[list[str]]:
    with composing():
        return list(jobs(overrides))


def test_jobs_of_a_sweep_are_every_combination_in_order() -> None:
    expected = [
        ["rounds=2", f"seed={s}", f"algorithm={a}"] for s in (0, 1, 2) for a in ("fed_avg", "cse_fsl")
    ]
    assert expanded("rounds=2", "seed=range(0,3)", "algorithm=fed_avg,cse_fsl") == expected


def test_sweep_of_an_experiment_combines_its_own_lists() -> None:
    algorithms = ("fed_avg", "splitfed_v1", "splitfed_v2", "cse_fsl", "fsl_sage")
    found = expanded("experiment=accuracy_study")
    assert found == [
        ["experiment=accuracy_study", f"algorithm={a}", f"seed={s}"] for a in algorithms for s in (0, 1, 2)
    ]
    cells = {tuple(job[1:]) for job in expanded("experiment=split_grid")}
    grid = product(("simple_conv", "resnet20", "vgg11"), (1, 2), ("cifar10", "cifar100"), (32, 128))
    assert cells == {
        (f"model={m}", f"model.cut={c}", f"dataset={d}", f"batch_size={b}") for m, c, d, b in grid
    }


def test_sweep_list_on_the_command_line_replaces_that_of_the_experiment() -> None:
    found = expanded("experiment=accuracy_study", "seed=7", "algorithm=fed_avg,cse_fsl")
    assert found == [
        ["experiment=accuracy_study", "seed=7", f"algorithm={a}"] for a in ("fed_avg", "cse_fsl")
    ]


def test_sweep_over_several_experiments_combines_the_lists_of_each() -> None:
    found = expanded("experiment=paper_cifar10,accuracy_study", "seed=0,1")
    assert [
        sum(job[0] == f"experiment={e}" for job in found) for e in ("paper_cifar10", "accuracy_study")
    ] == [
        2,
        10,
    ]


def test_sweep_over_an_interval_is_refused() -> None:
    with pytest.raises(UserError, match="a sweep takes a list of values"):
        expanded("optimizer.lr=interval(0,1)")


def test_sweep_over_a_glob_takes_the_choices_that_match() -> None:
    assert expanded("optimizer=glob(adam*)", "seed=0") == [
        ["optimizer=adam", "seed=0"],
        ["optimizer=adamw", "seed=0"],
    ]


def test_sweep_over_a_glob_of_codecs_takes_the_choices_that_match() -> None:
    asked = spell_out("quant.smashed=glob(int8_*)")
    expected = [[f"codec@quant.smashed=int8_{each}"] for each in ("block", "channel", "token")]
    assert expanded(*asked) == expected


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer=glob(rms*)", "optimizer=glob(rms*): matches none of adam, adamw, sgd"),
        ("seed=glob(1*)", "seed=glob(1*): glob(...) is for choices of a group"),
        ("seed=range(3,3)", "seed=range(3,3): stands for no value"),
    ],
)
def test_sweep_over_what_stands_for_no_value_is_refused(override: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        expanded(override)
    assert str(error.value) == told
