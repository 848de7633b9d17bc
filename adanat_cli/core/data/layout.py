"""What the folders below a data set mean: splits, classes, or levels without a meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adanat_cli.core.data.described import listed
from adanat_cli.core.data.labels import ClassIds, number_names
from adanat_cli.core.data.source_files import Listing, list_files
from adanat_cli.core.data.splits import split_of_folder
from adanat_cli.core.errors import MissingSplit, printable, require


@dataclass
class Branch:
    """Images below one folder, with notes on them for people.

    Attributes:
        base: path of that folder from the one that was opened: "", or with "/" at its end.
        files: the images, from the one that was opened as well.
        notes: what was left out or decided, for people.
    """

    base: str
    files: list[str]
    notes: list[str] = field(default_factory=list)

    def within(self, file: str) -> str:
        """The path of a file from the branch's folder."""
        return file[len(self.base) :]

    def strays(self) -> list[str]:
        """Images that lie in no folder."""
        return [file for file in self.files if "/" not in self.within(file)]

    def folders(self, level: int = 0) -> dict[str, list[str]]:
        """Images by the name of their folder at a level below the branch's own."""
        found: dict[str, list[str]] = {}
        for file in self.files:
            parts = self.within(file).split("/", level + 1)
            if len(parts) > level + 1:
                found.setdefault(parts[level], []).append(file)
        return found


@dataclass(frozen=True)
class Layout:
    """What lies in a folder, and which of it belongs to a split.

    Attributes:
        root: the folder that was opened.
        listing: all that lies in it.
        branch: images of the split.
        train: those of the train split, whose class folders are given ids; the same object if it is the only one.
    """

    root: Path
    listing: Listing
    branch: Branch
    train: Branch

    @property
    def folder(self) -> Path:
        """The folder of the split."""
        return self.root / self.branch.base


def read_layout(root: Path, split: str) -> Layout:
    """List the images of a split and find what the levels of folders mean.

    A class is a folder beside others, whatever lies in it: torchvision's rule, after levels of one folder
    (``flowers/photos/<class>``) are passed. Splits lie above classes (``train/<class>``) or in them
    (``<class>/train``).

    Raises:
        MissingSplit: if there are other splits but not this one.
        AdaNATError: if there are no images, or it is not clear what their folders mean.
    """
    listing = list_files(root)
    require(
        bool(listing.images),
        f"{root} holds no images; expected one folder of images per class, Parquet files or tars.",
    )
    whole = _pass_lone_folders(Branch("", listing.images, listing.notes))
    splits = _splits_above(whole, root) or _splits_inside(whole)
    if split not in splits and (splits or split != "train"):
        there = ", ".join(sorted(splits)) or (
            "no split folders, so all its images count as train: read those, or move some into val/ and the "
            "others into train/"
        )
        raise MissingSplit(f"{root} has no {split} split; it has {there}.")
    branch = splits.get(split, whole)
    return Layout(root, listing, branch, splits.get("train", branch))


def number_folders(layout: Layout) -> tuple[list[str], ClassIds, dict[int, str], int]:
    """Take the folders of a split for classes and give them the ids that the train split gives them.

    Returns:
        Images from the root of the layout, sorted, and their (images,) class ids; class id to name, empty where there
        are no class folders, and the number of classes.

    Raises:
        AdaNATError: if many images lie beside them, or train lacks some and they would change the others' ids.
    """
    branch = layout.branch
    files, folders = _by_class(branch, layout.folder)
    numbered = folders if layout.train is branch else _by_class(layout.train, layout.root / layout.train.base)[1]
    ids, names, num_classes = number_names(sorted(set(numbered)))
    if strange := sorted(set(folders) - set(ids)):
        train_ids = ids
        ids, names, num_classes = number_names(sorted({*train_ids, *strange}))
        shown = [f"{printable(name)}/" if name else "images without a folder" for name in strange]
        require(
            all(ids[name] == label for name, label in train_ids.items()),
            f"{layout.folder} has {listed(shown)}, which the train split lacks; expected the same class folders in "
            "every split.",
        )
    others = [branch.within(file) for file in layout.listing.others if file.startswith(branch.base)]
    if bare := {file.split("/")[0] for file in others if "/" in file} - set(folders):
        branch.notes.append(f"no images in {listed([f'{printable(name)}/' for name in sorted(bare)])}")
    if len(names) < 2 and (unread := [printable(file) for file in others]):
        branch.notes.append(f"not read: {listed(unread)}")
    labels = np.fromiter((ids[name] for name in folders), np.int64, len(folders))
    return files, labels, {label: printable(name) for label, name in names.items() if name}, num_classes


def _pass_lone_folders(branch: Branch) -> Branch:
    """Go down while nearly all images lie in folders of a single folder that is not a split."""
    while len(folders := branch.folders()) == 1:
        (name,) = folders
        inside = Branch(f"{branch.base}{name}/", folders[name])
        num_deeper = len(inside.files) - len(inside.strays())
        if split_of_folder(name) or num_deeper <= len(branch.files) / 2:
            break
        if strays := branch.strays():
            inside.notes.append(_left_out(strays, branch, f"{printable(name)}/"))
        branch = Branch(inside.base, inside.files, branch.notes + inside.notes)
    return branch


def _splits_above(branch: Branch, root: Path) -> dict[str, Branch]:
    """Folders named after splits; one such name among others is a class: trains are a thing to photograph."""
    folders = branch.folders()
    named = {name: split for name in folders if (split := split_of_folder(name))}
    if len(set(named.values())) < min(len(folders), 2):
        for name in named:
            require(
                len(Branch(f"{branch.base}{name}/", folders[name]).folders()) < 2,
                f"{root / branch.base} holds {name}/ with class folders of its own, and beside it "
                f"{listed([f'{printable(other)}/' for other in sorted(folders) if other != name])}; expected folders "
                "of splits or of classes: move the others away, or give the one that is meant.",
            )
        return {}
    notes = list(branch.notes)
    if left := [printable(name) for name in folders if name not in named]:
        notes.append(f"left out: {listed(left)}, beside the folders of the splits")
    if strays := branch.strays():
        notes.append(_left_out(strays, branch, "the folders of the splits"))
    splits: dict[str, Branch] = {}
    for name, split in named.items():
        require(split not in splits, f"{root} has several folders of the {split} split, among them {name}; keep one.")
        splits[split] = _pass_lone_folders(Branch(f"{branch.base}{name}/", folders[name], list(notes)))
    return splits


def _splits_inside(branch: Branch) -> dict[str, Branch]:
    """Splits as folders in each of the class folders."""
    folders = branch.folders(1)
    named = {name: split_of_folder(name) for name in folders}
    if len(set(named.values())) < 2 or "" in named.values():
        return {}
    notes = [
        *branch.notes,
        f"the folders {listed(sorted(map(printable, folders)))} in the class folders are the splits",
    ]
    splits: dict[str, Branch] = {}
    for name, split in named.items():
        splits.setdefault(split, Branch(branch.base, [], list(notes))).files.extend(folders[name])
    return splits


def _by_class(branch: Branch, folder: Path) -> tuple[list[str], list[str]]:
    """Images and the class folder of each, without those beside class folders."""
    folders, strays = branch.folders(), branch.strays()
    if not folders:
        return sorted(strays), [""] * len(strays)
    files = sorted(file for found in folders.values() for file in found)
    if strays:
        require(
            2 * len(strays) <= len(files),
            f"{folder} holds {len(files)} images in folders and {len(strays)} beside them; expected a folder for each "
            "class, or no folders at all.",
        )
        branch.notes.append(_left_out(strays, branch, "the class folders"))
    # The first image that lies in a class folder itself ends the search.
    if all("/" in branch.within(file).partition("/")[2] for file in files) and len(deeper := branch.folders(1)) > 1:
        inside = listed([f"{printable(name)}/" for name in sorted(deeper)])
        branch.notes.append(f"classes are the outer folders, with all images in {inside} inside them")
    return files, [branch.within(file).partition("/")[0] for file in files]


def _left_out(files: Sequence[str], branch: Branch, where: str) -> str:
    shown = listed([printable(branch.within(file)) for file in files])
    return f"left out: {len(files):,} {'image' if len(files) == 1 else 'images'} beside {where} ({shown})"
