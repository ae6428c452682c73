"""Images in folders named after their classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unicodedata import normalize

from typing_extensions import override

from fedsplit.data.decoding import SUFFIXES
from fedsplit.data.image_files import ImageFiles, Listed, by_class, classes_in, images_beside
from fedsplit.errors import UserError
from fedsplit.machine.terminal import note

_ALIKE = "rename one, as accents can be one character (NFC) or two (NFD), and spaces many"


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

    @override
    def list_files(self) -> tuple[Listed, Listed]:
        """List the image files of both splits; one line names the images that are left out."""
        classes = self.class_names()
        for split, of in (("train", "dataset.classes"), (self.test_split, "train")):
            surplus = sorted(set(classes_in(self.folder / split)) - set(classes))
            if surplus:
                message = f"class {surplus[0]} of {split} is none of {of}"
                if alike := [name for name in classes if _look(name) == _look(surplus[0])]:
                    message += (
                        f", whose {alike[0]} looks the same and is written in other characters: {_ALIKE}"
                    )
                raise UserError("dataset.root", self.root, message)
        self._tell_of_images_beside(classes)
        train, test = (by_class(self.folder / split, classes) for split in ("train", self.test_split))
        missing = set(range(len(classes))) - {label for _, label in train}
        if missing and self.classes is None:
            raise UserError("dataset.root", self.root, f"train/{classes[min(missing)]} holds no image")
        for split, found in (("train", train), (self.test_split, test)):
            if not found and (split == "train" or self.classes is None):
                raise self.misplaced_error(f"{split}/<class>/ holds no image{self._instead(split)}")
        return train, test

    def _instead(self, split: str) -> str:
        """Continuation of an error on a split without images: what to do where it is the one to test on."""
        if split == "train":
            return ""
        beside = ", beside dataset.validation too" if self.validation is not None else ""
        return f", and is needed to test on{beside}: move some images of each class there from train/<class>/"

    @override
    def class_names(self) -> tuple[str, ...]:
        train = self.folder / "train"
        if not train.is_dir():
            lacks = "has no folder train" if self.folder.is_dir() else "is no folder"
            raise self.misplaced_error(
                f"{lacks}; wanted are train/<class>/* and {self.test_split}/<class>/* in it"
            )
        for name in self.classes or ():  # they may come over the network
            if not name or name != Path(name).name or name.startswith(".") or "\0" in name:
                raise UserError("dataset.classes", name, "must be the name of a folder, not a path")
        classes = tuple(classes_in(train) if self.classes is None else self.classes)
        looks: dict[str, str] = {}
        for name in classes:
            other = looks.setdefault(_look(name), name)
            if other != name:
                message = f"classes {other!a} and {name!a} look the same, {name}: {_ALIKE}"
                raise UserError("dataset.root", self.root, message)
        return classes

    def _tell_of_images_beside(self, classes: Sequence[str]) -> None:
        folders = [self.folder / split for split in ("train", self.test_split)]
        beside = [file for folder in folders for file in images_beside(folder, classes)]
        if beside:
            of, example = "image is" if len(beside) == 1 else "images are", beside[0].relative_to(self.folder)
            ends = ", ".join(sorted(SUFFIXES))
            message = f"taken are <class>/* that end in {ends}"
            note(f"dataset.root={self.root}: {len(beside)} {of} left out, as {example}: {message}")


def _look(name: str) -> str:
    """The same for names that look the same: whatever way accents and spaces are written."""
    return " ".join(normalize("NFC", name).split())
