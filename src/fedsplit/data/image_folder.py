"""Images in folders named after their classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fedsplit.data.image_files import ImageFiles, Listed, by_class, classes_in
from fedsplit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ImageFolder(ImageFiles):
    """`root/train/<class>/*` and `root/test/<class>/*`; classes are sorted by name, and so are files.

    Args:
        classes: names of all classes, in the order of their labels: a folder need not hold images of each,
            and may be without `test`; None are those that `root/train` has, and each must have images.
    """

    test_split: ClassVar[str] = "test"
    """Name of the folder with the images to evaluate on."""

    classes: list[str] | None = None

    def listed(self) -> tuple[Listed, Listed]:
        """See `ImageFiles.listed`."""
        classes = self.class_names()
        for split, of in (("train", "dataset.classes"), (self.test_split, "train")):
            folder = self.folder / split
            surplus = sorted(set(classes_in(folder)) - set(classes)) if folder.is_dir() else []
            if surplus:
                raise UserError("dataset.root", self.root, f"class {surplus[0]} of {split} is none of {of}")
        train, test = (by_class(self.folder / split, classes) for split in ("train", self.test_split))
        missing = set(range(len(classes))) - {label for _, label in train}
        if missing and self.classes is None:
            raise UserError("dataset.root", self.root, f"train/{classes[min(missing)]} holds no image")
        for split, found in (("train", train), (self.test_split, test)):
            if not found and (split == "train" or self.classes is None):
                raise self.misplaced(f"{split}/<class>/ holds no image")
        return train, test

    def class_names(self) -> tuple[str, ...]:
        """See `ImageSource.class_names`."""
        train = self.folder / "train"
        if not train.is_dir():
            raise self.misplaced(f"a folder that holds train/<class>/* and {self.test_split}/<class>/*")
        for name in self.classes or ():  # they may come over the network
            if not name or name != Path(name).name or name.startswith(".") or "\0" in name:
                raise UserError("dataset.classes", name, "must be the name of a folder, not a path")
        return tuple(classes_in(train) if self.classes is None else self.classes)
