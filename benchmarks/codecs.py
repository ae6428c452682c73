"""What each codec makes of a small CNN's own smashed data and cut gradients, on real images.

    python benchmarks/codecs.py --root datas/cifar10_jpeg

Trains a CNN with batch normalisation for some epochs on the images of one client, and prints what
`python main.py task=codecs` prints for any model: bits a value with and without zstandard, SQNR, the order-0
entropy of the codes as the limit of a lossless stage, and speeds. `--root` holds train/<class>/* and
test/<class>/*. `--help` lists the options; further arguments are overrides, such as
task.codecs.int8_block.block_size=32.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from torch import nn

from fedsplit.cli.run import main


class SmallCnn(nn.Sequential):
    """Two convolutions to smashed data of 64x8x8 (for images of 32x32) behind a ReLU, then a classifier."""

    def __init__(self, *, num_classes: int, channels: int, image_size: int) -> None:
        client = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        )
        server = nn.Sequential(nn.Flatten(), nn.Linear(64 * (image_size // 4) ** 2, num_classes))
        super().__init__(client, server)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of images")
    parser.add_argument("--images", type=int, default=5000, help="training images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    options, overrides = parser.parse_known_args()
    sys.argv[1:] = [
        "task=codecs",
        f"task.steps={options.epochs * options.images // options.batch}",
        "model._target_=benchmarks.codecs.SmallCnn",
        "model.cut='0'",
        "dataset=image_folder",
        f"dataset.root={options.root}",
        f"dataset.max_train={options.images}",
        "dataset.max_test=100",
        "num_clients=1",
        f"batch_size={options.batch}",
        "auxiliary=linear",
        *overrides,
    ]
    sys.exit(main())
