"""Tiny ImageNet in the layout it is published in."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from typing_extensions import override

from fedsplit.data.image_files import ImageFiles, Listed, images_in


@dataclass(frozen=True, kw_only=True)
class TinyImageNet(ImageFiles):
    """200 classes, 500 training and 50 validation images of 64x64 pixels each; the latter are the test split.

    Read are `wnids.txt` (the classes, in the order of their labels), `train/<wnid>/images/*.JPEG`, and
    `val/images/*.JPEG` with `val/val_annotations.txt`. The published test images have no labels.

    Source: Y. Le and X. Yang, "Tiny ImageNet Visual Recognition Challenge", CS231n, Stanford, 2015.
    """

    published_train: ClassVar[int | None] = 100_000
    published_side: ClassVar[int | None] = 64
    published_classes: ClassVar[int] = 200
    origin: ClassVar[str] = "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip and name its folder"

    @override
    def list_files(self) -> tuple[Listed, Listed]:
        labels = {wnid: label for label, wnid in enumerate(self.class_names())}
        train: Listed = []
        for wnid, label in labels.items():
            of_class = images_in(self.folder / "train" / wnid / "images")
            if not of_class:
                raise self.misplaced_error(f"train/{wnid}/images/ holds no image")
            train += [(file, label) for file in of_class]
        return train, self._validation(labels)

    @override
    def class_names(self) -> tuple[str, ...]:
        """Names of classes as WordNet's ids; see `ImageSource.class_names`."""
        return self._wnids

    @cached_property
    def _wnids(self) -> tuple[str, ...]:
        lines = self._lines("wnids.txt", "a folder that holds wnids.txt, train/<wnid>/images/* and val/")
        return tuple(line.strip() for line in lines if line.strip())

    def _validation(self, labels: dict[str, int]) -> Listed:
        message = "val/ must hold images/* and val_annotations.txt"
        there = {file.name: file for file in images_in(self.folder / "val" / "images")}
        found: Listed = []
        for line in self._lines("val/val_annotations.txt", message):
            name, wnid, *_ = [*line.split("\t"), ""]
            if wnid not in labels:
                raise self.misplaced_error(
                    f"val/val_annotations.txt names a class {wnid!r} that wnids.txt does not"
                )
            if name not in there:
                raise self.misplaced_error(
                    f"val/images/ must hold {name!r}, which val/val_annotations.txt names"
                )
            found.append((there[name], labels[wnid]))
        if not found:
            raise self.misplaced_error(message)
        return sorted(found)

    def _lines(self, name: str, message: str) -> list[str]:
        try:
            return (self.folder / name).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self.misplaced_error(message) from error
