from hashlib import sha256

import numpy as np
import pytest
import torch

from fedsplit.data.partition import Draws, Partition, Pieces
from fedsplit.data.shards import ClientShards

SIZES = [[5], [0], [3, 3, 3], [0, 2, 2, 0, 7, 1, 1, 12]]


def _pieces(sizes: list[int], seed: int = 0) -> Pieces:
    return Pieces(np.random.default_rng(seed).permutation(sum(sizes)), np.array(sizes))


def _draws(clients: int = 40, seed: int = 0, samples: int = 9, each: int = 5) -> Draws:
    return Draws(samples, num_clients=clients, each=each, seed=seed)


@pytest.mark.parametrize("sizes", SIZES)
def test_digest_of_pieces_is_of_sizes_and_indices_one_client_after_the_other(sizes: list[int]) -> None:
    found, partition = sha256(), _pieces(sizes)
    for shard in partition:
        found.update(f"{len(shard)}\n".encode() + shard.astype("<i8").tobytes())
    assert partition.digest == found.hexdigest()


@pytest.mark.parametrize("sizes", SIZES)
def test_pieces_are_those_of_a_list_of_arrays(sizes: list[int]) -> None:
    arrays = list(_pieces(sizes))
    again = Pieces.of(arrays)
    assert again.sizes.tolist() == [len(each) for each in arrays] == sizes
    assert all(map(np.array_equal, again, arrays))


def test_pieces_grouped_by_client_keep_the_order_of_samples() -> None:
    grouped = Pieces.group(np.array([7, 1, 5, 3]), np.array([2, 0, 2, 0]), 4)
    assert [shard.tolist() for shard in grouped] == [[1, 3], [], [7, 5], []]


@pytest.mark.parametrize("partition", [_pieces(SIZES[3]), _draws()], ids=["pieces", "draws"])
@pytest.mark.parametrize("at_a_time", [1, 3, 100])
def test_blocks_hold_all_clients_in_order(partition: Partition, at_a_time: int) -> None:
    clients: list[int] = []
    for block in partition.blocks(at_a_time):
        assert block.first == len(clients)
        for client, size in enumerate(block.sizes.tolist(), block.first):
            own = block.indices[block.clients == client - block.first]
            assert len(own) == size
            assert np.array_equal(own, partition[client])
            clients.append(client)
    assert clients == list(range(len(partition)))


def test_draws_of_a_client_follow_from_seed_and_client_alone() -> None:
    few, many = _draws(3), _draws(10**9)
    for client in range(3):
        assert np.array_equal(few[client], many[client])
    assert not np.array_equal(many[0], many[1])
    assert not np.array_equal(many[10**9 - 1], many[0])
    assert not np.array_equal(_draws(3, seed=1)[0], few[0])


def test_draws_are_even_over_samples_and_with_replacement() -> None:
    block = _draws(clients=2000, samples=7, each=9).block(0, 2000)
    counts = np.bincount(block.indices, minlength=7)
    assert len(counts) == 7  # none beyond the last
    mean = len(block.indices) / 7
    assert (np.square(counts - mean) / mean).sum() < 22.5  # chi-squared of six degrees: 0.1 %
    by_client = block.indices.reshape(2000, 9)
    assert all(len(set(drawn)) < 9 for drawn in by_client.tolist())  # nine of seven
    together = np.bincount(by_client[:, 0] * 7 + by_client[:, 1], minlength=49)
    assert (np.square(together - 2000 / 49) / (2000 / 49)).sum() < 85  # 48 degrees: 0.1 %


def test_digest_of_draws_tells_all_that_they_follow_from_apart() -> None:
    several = [_draws(), _draws(clients=41), _draws(seed=1), _draws(samples=10), _draws(each=6)]
    assert len({each.digest for each in several}) == len(several)
    assert _draws().digest == _draws().digest


def test_shards_as_tensors_are_those_of_the_partition() -> None:
    partition = _pieces(SIZES[3])
    shards = ClientShards(partition)
    assert shards.sizes == SIZES[3]
    assert torch.equal(torch.cat(shards[:]), torch.from_numpy(partition.indices))
    assert torch.equal(shards.indices, torch.from_numpy(partition.indices))
    assert [each.tolist() for each in shards[2:-1]] == [each.tolist() for each in list(partition)[2:-1]]
    assert torch.equal(shards[-1], torch.from_numpy(partition[7]))
    with pytest.raises(IndexError):
        shards[8]
