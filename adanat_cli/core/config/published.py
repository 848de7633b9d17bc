"""Published figures, and where the files are with which their authors measured them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """A figure that a paper or its program gives, of the benchmark's usual number of images.

    Attributes:
        num_steps: generation steps, with the policy that was learned for them.
        value: the figure, as it was rounded.
        decimals: digits behind its point.
        source: whose it is, in words.
        metric: what it is.
    """

    num_steps: int
    value: float
    decimals: int
    source: str
    metric: str = "fid"


@dataclass(frozen=True)
class Place:
    """Where a file is: on the Hub, or on a page from which it has to be downloaded by hand.

    Attributes:
        file: its name; on the Hub the path in the repository.
        repo: repository on the Hub; "" if it is not there.
        page: URL, where it is not on the Hub.
        num_bytes: its size; 0 if unknown.
        sha256: the first digits of its hash; "" if unknown.
    """

    file: str
    repo: str = ""
    page: str = ""
    num_bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Published:
    """What is published of a benchmark.

    Attributes:
        figures: figures by number of steps; none where none is known to this toolkit.
        reference: the statistics of real images.
        policies: number of steps -> file of a policy that is not on the Hub.
    """

    reference: Place
    figures: tuple[Figure, ...] = ()
    policies: Mapping[int, Place] = field(default_factory=dict)


_UVIT = "https://drive.google.com/drive/folders/1yo-XhqbPue3rp5P57j6QbA5QZx6KybvP"
_DRIVE = "https://drive.google.com/file/d/{}/view"
_STATS, _STATS_BYTES = "assets/fid_stats/", 33_600_000

PUBLISHED: dict[str, Published] = {
    "imagenet256": Published(
        Place(f"{_STATS}fid_stats_imagenet256_guided_diffusion.npz", "nzl-thu/MUSE", num_bytes=_STATS_BYTES),
        (
            Figure(8, 2.86, 2, "AdaNAT-L (arXiv 2409.00342)"),
            Figure(16, 2.41, 2, "AdaGen's policy on the same NAT"),
        ),
        {8: Place("policy of AdaNAT-L", page=_DRIVE.format("1fjHFZUUnEdKptojayW4S1Vr78uwLPr5c"))},
    ),
    "imagenet512": Published(Place("fid_stats_imagenet512_guided_diffusion.npz", page=_UVIT)),
    "mscoco": Published(Place("fid_stats_mscoco256_val.npz", page=_UVIT)),
    "cc3m": Published(
        Place(f"{_STATS}fid_stats_cc3m_val.npz", "nzl-thu/MUSE", num_bytes=_STATS_BYTES),
        policies={8: Place("policy for CC3M", page=_DRIVE.format("1WZ9HxoTifIHhujcgMdBuGt6fwHBDnhG4"))},
    ),
}
"""By the name of the benchmark. Sources: the paper, and the pages of AdaNAT's and U-ViT's programs."""
