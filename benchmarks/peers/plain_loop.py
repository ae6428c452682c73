"""The task without a framework, clients one after the other: `python plain_loop.py TASK`."""

import sys
import time

import torch
from shared import PeerTask, prepare, tell
from torch import Tensor


def main(folder: str) -> None:
    """Train all rounds, with one model that takes the weights of each client in turn."""
    prepare()
    task = PeerTask.load(folder)
    model = task.model()
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    seconds = []
    for t, cohort in enumerate(task.cohorts):
        start = time.perf_counter()
        total = sum(order.shape[1] for order in task.orders[t])
        mean: dict[str, Tensor] = {name: torch.zeros_like(each) for name, each in weights.items()}
        for client in cohort:
            model.load_state_dict(weights)
            share = task.train(model, t, client) / total
            for name, each in model.state_dict().items():
                if each.is_floating_point():
                    mean[name].add_(each, alpha=share)
                else:
                    mean[name].copy_(each)
        weights = mean
        seconds.append(time.perf_counter() - start)
    tell(task, weights, seconds)


if __name__ == "__main__":
    main(sys.argv[1])
