"""Which classifiers of torchvision can be split, and at what: `python benchmarks/every_classifier.py`.

Prints a row of Markdown for each: the stage in its middle, what crosses there, how many cuts there are
and seconds to find and make it; or why it cannot be. Of those with more than `--largest` million
parameters, which take twice their memory, the cuts are only looked for.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from fedsplit.errors import first_line
from fedsplit.machine.torchvision_operators import torchvision
from fedsplit.models.splitting.cuts import Cuts, resolve_cut
from fedsplit.models.splitting.split import split
from fedsplit.models.zoo.classifiers import classifier

_SIDES = {"inception_v3": 96, "alexnet": 64, "googlenet": 64, "maxvit_t": 224, "vit_h_14": 56}


def row(name: str, largest: int) -> str:
    """Of one classifier."""
    side = _SIDES.get(name, 64)
    sizes = {"num_classes": 10, "channels": 3, "image_size": side}
    try:
        torch.manual_seed(0)
        network, x = classifier(name=name, **sizes), torch.randn(2, 3, side, side)
        millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        start = time.perf_counter()
        cuts = Cuts(network, x)
        cut = resolve_cut(cuts, None, None)
        if millions <= largest:
            split(network, cut, x)
        crossing = "x".join(map(str, cuts[cut].shapes[0]))
        took = f"{time.perf_counter() - start:.1f}" if millions <= largest else "cuts only"
    except Exception as error:
        return f"| {name} | {side} | cannot: {first_line(error)} | | | | |"
    return f"| {name} | {side} | {millions:.1f} | {cut} | {crossing} | {len(cuts.possible)} | {took} |"


def main() -> None:
    """All of them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="none: all that torchvision has")
    parser.add_argument("--largest", type=int, default=150, help="million parameters that are really split")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = torchvision().models
    print("| classifier | side | parameters (M) | cut in the middle | crosses | cuts | seconds |")
    print("|---|--:|--:|---|---|--:|--:|")
    for name in options.names or models.list_models(module=models):
        print(row(name, options.largest), flush=True)


if __name__ == "__main__":
    main()
