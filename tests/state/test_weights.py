import numpy as np
import pytest
import torch

from fedsplit.state.weights import StackedWeights, Weights, average


def _models(count: int, dtype: torch.dtype = torch.float32) -> list[Weights]:
    draw = torch.Generator().manual_seed(count)
    return [
        {
            "weight": torch.randn(3, 2, 4, 4, generator=draw).to(dtype),
            "running_var": torch.rand(5, generator=draw).to(dtype),
            "scalar": torch.randn((), generator=draw).to(dtype),
            "num_batches_tracked": torch.tensor(7 * i % 5),
        }
        for i in range(count)
    ]


COUNTS = [[1], [3, 5], [1, 1, 1], [7, 1, 2, 90], list(range(1, 50)), [1] * 97, [10**9, 1, 3]]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.float64, 1e-14), (torch.bfloat16, 2**-8), (torch.float16, 2**-10)],
)
def test_average_of_floats_is_weighted_by_sample_counts(
    counts: list[int], dtype: torch.dtype, tolerance: float
) -> None:
    models = _models(len(counts), dtype)
    averaged = average(models, counts)
    shares = np.array(counts, np.float64) / sum(counts)
    for name in ("weight", "running_var", "scalar"):
        expected = np.tensordot(shares, np.stack([m[name].double().numpy() for m in models]), 1)
        assert averaged[name].dtype == dtype
        np.testing.assert_allclose(averaged[name].double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_average_of_16_bit_floats_is_accumulated_in_float32(dtype: torch.dtype) -> None:
    # 4,000 summands of 1/4,000: a bfloat16 sum stands still at 1/16, a float16 sum at 1/2
    models = [{"w": torch.ones(3, dtype=dtype)} for _ in range(4000)]
    assert torch.equal(average(models, [1] * 4000)["w"], torch.ones(3, dtype=dtype))


@pytest.mark.parametrize("values", [[3, 7, 5], [0, 0, 0], [2**40 + 1, 2**40, 0]])
def test_average_of_integer_counters_is_their_maximum(values: list[int]) -> None:
    averaged = average([{"n": torch.tensor(v)} for v in values], [1, 2, 3])
    assert averaged["n"].dtype == torch.int64
    assert averaged["n"].item() == max(values)


@pytest.mark.parametrize("clients", [3, 10, 49, 1000])
def test_average_of_equal_weights_is_the_weights_where_shares_do_not_sum_exactly_to_1(clients: int) -> None:
    value = torch.tensor([1.0, -3.0, 1e-3])
    found = average([{"w": value}] * clients, [1] * clients)["w"]
    torch.testing.assert_close(found, value, rtol=1e-5, atol=0)


def test_average_leaves_a_client_without_samples_out() -> None:
    models = _models(2)
    assert torch.equal(average(models, [4, 0])["weight"], models[0]["weight"])


def test_average_leaves_its_inputs_unchanged_and_shares_no_memory_with_them() -> None:
    models = _models(1)
    before = {name: value.clone() for name, value in models[0].items()}
    for value in average(models, [5]).values():
        value.fill_(9)
    assert all(torch.equal(models[0][name], value) for name, value in before.items())


def test_average_keeps_the_order_of_names() -> None:
    models = _models(3)
    assert list(average(models, [1, 2, 3])) == list(models[0])


def test_average_of_stacks_gives_each_row_the_share_of_its_own_client() -> None:
    """Clients 2 and 0 are one stack, 1 and 3 another: rows are not in the order of clients."""
    models = _models(4)
    stacks = [
        (positions, {name: torch.stack([models[p][name] for p in positions]) for name in models[0]})
        for positions in ((2, 0), (1, 3))
    ]
    averaged, expected = (average(each, [1, 20, 300, 4000]) for each in (StackedWeights(stacks), models))
    for name, tensor in expected.items():
        torch.testing.assert_close(averaged[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
