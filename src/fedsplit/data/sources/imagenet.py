"""Dataset of ImageNet's images in folders."""

from dataclasses import dataclass
from typing import ClassVar

from fedsplit.data.sources.image_folder import ImageFolder


@dataclass(frozen=True, kw_only=True)
class ImageNet(ImageFolder):
    """`root/train/<class>/*` and `root/val/<class>/*`: 1,281,167 and 50,000 images of 1,000 classes.

    Source: O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015.
    """

    published_train: ClassVar[int | None] = 1_281_167
    published_classes: ClassVar[int] = 1_000
    test_split: ClassVar[str] = "val"
    origin: ClassVar[str] = (
        "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of https://image-net.org/download.php (for "
        "members), unpacked into a folder a class, also the validation images"
    )
