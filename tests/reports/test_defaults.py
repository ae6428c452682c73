"""An experiment whose `where` says `others: default` holds only runs that differ in what it names."""

from pathlib import Path
from typing import Any

import pytest

from fedsplit.errors import UserError
from fedsplit.reports.experiments import experiments_in
from fedsplit.reports.runs import Run
from fedsplit.reports.selection import at_defaults
from tests.conftest import Configure

NAMED = ("algorithm", "model", "dataset", "distribution")


def run_of(config: dict[str, Any], **changes: Any) -> Run:
    """A run with what is changed, by dotted key with `__` for dots; `choice__GROUP` changes a choice."""
    for key, value in changes.items():
        *places, name = key.split("__")
        if places == ["choice"]:
            config["choices"][name] = value
            continue
        node = config
        for place in places:
            node = node[place]
        node[name] = value
    return Run(Path("run"), config, "", {})


@pytest.mark.parametrize(
    "changes",
    [
        {"qat": True},
        {"run": "saves/other"},
        {"weight_bits": 2},
        {"num_clients": 100},
        {"rounds": 25},
        {"optimizer__lr": 0.1},
        {"algorithm__align_interval": 2},
        {"auxiliary__align_epochs": 7},
        {"client__stateless": True},
        {"dataset__max_train": 300},
        {"quant__smashed__zstd": 3},
        {"choice__transport": "grpc"},
        {"choice__codec@quant.smashed": "sign"},
        {"model___target_": "my_package.MyNet"},
        {"model__width": 16},  # a key that nothing has by itself
    ],
    ids=str,
)
def test_run_with_another_setting_is_not_at_defaults(configured: Configure, changes: dict[str, Any]) -> None:
    runs = [run_of(configured().plain()), run_of(configured().plain(), **changes)]
    assert at_defaults(runs, NAMED) == runs[:1]


@pytest.mark.parametrize(
    ("overrides", "changes"),
    [
        ([], {"seed": 3, "progress": False, "checkpoint_interval": 1, "device": "cuda:1"}),
        ([], {"dataset__root": "/data", "choice__engine": "vectorized"}),
        (["algorithm=cse_fsl", "distribution=extreme"], {}),
        (["algorithm=sl_single_server"], {"choice__engine": "sequential"}),
    ],
)
def test_run_that_differs_in_what_is_named_or_changes_no_result_is_at_defaults(
    configured: Configure, overrides: list[str], changes: dict[str, Any]
) -> None:
    run = run_of(configured(*overrides).plain(), **changes)
    assert at_defaults([run], NAMED) == [run]


def test_named_keys_and_what_is_below_them_are_free(configured: Configure) -> None:
    run = run_of(configured().plain(), qat=True, optimizer__lr=0.5, quant__smashed__zstd=3)
    assert at_defaults([run], (*NAMED, "qat", "optimizer.lr")) == []
    assert at_defaults([run], (*NAMED, "qat", "optimizer.lr", "quant.smashed")) == [run]


def test_defaults_are_those_of_the_choices_that_are_named(configured: Configure) -> None:
    run = run_of(configured("optimizer=sgd").plain())
    other = run_of(configured("optimizer=sgd").plain(), optimizer__lr=0.5)
    assert at_defaults([run], NAMED) == []
    assert at_defaults([run, other], (*NAMED, "optimizer")) == [run]


def test_model_of_ones_own_is_at_defaults_only_where_models_are_named(configured: Configure) -> None:
    run = run_of(configured().plain(), model___target_="my.MyNet", choice__model="MyNet")
    assert at_defaults([run], ("algorithm",)) == []
    assert at_defaults([run], NAMED) == [run]


def test_runs_computed_sequentially_give_way_to_those_of_the_same_settings_computed_at_once(
    configured: Configure,
) -> None:
    engines = ("vectorized", "sequential", "sequential")
    runs = [run_of(configured().plain(), seed=seed, choice__engine=name) for seed, name in enumerate(engines)]
    alone = run_of(configured("algorithm=splitfed_v2").plain(), choice__engine="sequential")
    assert at_defaults([*runs, alone], NAMED) == [runs[0], alone]


def test_others_of_an_experiment_are_any_or_default(tmp_path: Path) -> None:
    listed = tmp_path / "exp.yaml"
    listed.write_text("a: {where: {model: digits_cnn, others: default}, expects: {seed: [0]}, by: quant}")
    (experiment,) = experiments_in(listed)
    assert experiment.others_default
    assert experiment.keys == {"model", "seed", "load", "quant"}
    listed.write_text("a: {where: {model: digits_cnn, others: any}}")
    assert not experiments_in(listed)[0].others_default
    listed.write_text("a: {where: {others: none}}")
    with pytest.raises(UserError, match=r"^a\.where\.others=none: must be one of any, default"):
        experiments_in(listed)
