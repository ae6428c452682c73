import numpy as np
import pytest

from fedsplit.data.local_test import held_out_size, hold_out


@pytest.mark.parametrize(
    ("samples", "fraction", "expected"),
    [
        (1, 0.5, 0),  # nothing of a single sample
        (2, 0.01, 1),  # at least one of two
        (2, 0.99, 1),  # and at least one is kept
        (100, 0.0, 0),
        (100, 0.2, 20),
        (44, 0.2, 9),  # 8.8
        (43, 0.2, 9),  # 8.6
        (42, 0.2, 8),  # 8.4
        (10, 0.25, 2),  # a half to the even number
        (14, 0.25, 4),
        (100, 0.999, 99),
    ],
)
def test_held_out_size_is_the_rounded_fraction_that_leaves_a_sample_to_train_on(
    samples: int, fraction: float, expected: int
) -> None:
    assert held_out_size(samples, fraction) == expected


@pytest.mark.parametrize("samples", [1, 2, 3, 50])
def test_hold_out_gives_every_sample_to_training_or_test_in_order(samples: int) -> None:
    shard = np.random.default_rng(samples).permutation(1000)[:samples]
    train, test = hold_out(shard, 0.3, client=1, seed=2)
    assert len(test) == held_out_size(samples, 0.3)
    assert sorted([*train, *test]) == sorted(shard)
    places = {int(sample): place for place, sample in enumerate(shard)}
    for part in (train, test):
        assert [places[int(sample)] for sample in part] == sorted(places[int(sample)] for sample in part)


def test_hold_out_follows_from_seed_and_client_and_draws_samples_equally_often() -> None:
    shard = np.arange(20)
    again = [hold_out(shard, 0.25, client=3, seed=1)[1].tolist() for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != hold_out(shard, 0.25, client=4, seed=1)[1].tolist()
    assert again[0] != hold_out(shard, 0.25, client=3, seed=2)[1].tolist()
    drawn = np.concatenate([hold_out(shard, 0.25, client=client, seed=0)[1] for client in range(2000)])
    counts = np.bincount(drawn, minlength=20)
    assert counts.sum() == 10_000
    assert (abs(counts - 500) < 5 * np.sqrt(2000 * 0.25 * 0.75)).all()  # five standard deviations
