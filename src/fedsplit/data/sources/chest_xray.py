"""Chest X-rays of children with and without pneumonia."""

from dataclasses import dataclass
from typing import ClassVar

from fedsplit.data.sources.image_folder import ImageFolder


@dataclass(frozen=True, kw_only=True)
class ChestXray(ImageFolder):
    """5,216 training and 624 test images in `train/` and `test/`, each with `NORMAL/` and `PNEUMONIA/`.

    Source: D. Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep
    Learning", 2018.
    """

    published_train: ClassVar[int | None] = 5_216
    published_classes: ClassVar[int] = 2
    origin: ClassVar[str] = (
        "chest_xray/ of https://data.mendeley.com/datasets/rscbjbr9sj or of "
        "https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia, "
        "with train/ and test/, each with NORMAL/ and PNEUMONIA/"
    )
