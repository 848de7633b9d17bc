"""The four benchmarks: everything that a published number was made with, one row each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from adanat_cli.core.config.base import Config
from adanat_cli.core.config.tokenizer import VQGANConfig
from adanat_cli.core.errors import AdaNATError, require


@dataclass(frozen=True)
class Benchmark(Config):
    """One benchmark.

    Attributes:
        source: Hub id of the images, read without ``data_dir``; "" where none is known.
        layout: what a local copy looks like, for people.
        image_size: side of the centre crop, in pixels (ADM's: box halvings, one bicubic step).
        condition: "class" or "text".
        num_classes: number of classes of the labels; 1 for text.
        num_images: images of the training split, to state sizes before the data is read.
        codebook_size: K of the tokenizer, the VQGAN of the MaskGIT family.
        nat_size: name of the NAT's size preset.
        nat_steps: updates of its pre-training.
        text_encoder: Hub id of the text encoder; "" for classes.
        text_width, text_length: width and number of the text encoder's states; 0 for classes.
        policy_steps: numbers of steps T that policies were published for.
        discriminator: backbone of the adversarial reward.
        discriminator_condition: what it is conditioned on.
        protocol: protocol of the Fréchet distance (``adm``, ``paper`` or ``clean``).
        reference: file name of the reference statistics.
        eval_images: number of images generated for one measurement.
        eval_condition: classes or captions of those images, in words.
    """

    source: str
    layout: str
    image_size: int
    condition: Literal["class", "text"]
    num_classes: int
    num_images: int
    nat_size: str
    nat_steps: int
    reference: str
    eval_images: int
    eval_condition: str
    codebook_size: int = 1024
    text_encoder: str = ""
    text_width: int = 0
    text_length: int = 0
    policy_steps: tuple[int, ...] = (4, 8)
    discriminator: str = "dino"
    discriminator_condition: str = "class label through a mapping network"
    protocol: str = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            (self.condition == "text") == bool(self.text_encoder and self.text_width and self.text_length),
            "A benchmark names a text encoder, its width and its length, or none of them.",
        )

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) tokens of an image."""
        return self.tokenizer().grid

    def data(self) -> dict[str, Any]:
        """Fields of ``DataConfig``."""
        return {"source": self.source, "image_size": self.image_size, "num_classes": self.num_classes}

    def tokenizer(self) -> VQGANConfig:
        """The tokenizer at this image size."""
        return VQGANConfig(image_size=self.image_size, codebook_size=self.codebook_size)

    def nat(self) -> dict[str, Any]:
        """Fields of ``NATConfig`` beside the size's own."""
        fields: dict[str, Any] = {"codebook_size": self.codebook_size, "grid": self.grid, "condition": self.condition}
        if self.condition == "text":
            return fields | {
                "text_width": self.text_width,
                "text_length": self.text_length,
                "text_encoder": self.text_encoder,
            }
        return fields | {"num_classes": self.num_classes}


_IMAGENET = Benchmark(
    source="ILSVRC/imagenet-1k",
    layout="train/ and val/ with a folder of images per synset (n01440764 …), or Parquet, or webdataset tars",
    image_size=256,
    condition="class",
    num_classes=1000,
    num_images=1_281_167,
    nat_size="large",
    nat_steps=500_000,
    reference="fid_stats_imagenet256_guided_diffusion.npz",
    eval_images=50_000,
    eval_condition="labels drawn at random",
)

BENCHMARKS: dict[str, Benchmark] = {
    "imagenet256": _IMAGENET,
    "imagenet512": dataclasses.replace(
        _IMAGENET, image_size=512, reference="fid_stats_imagenet512_guided_diffusion.npz"
    ),
    "mscoco": Benchmark(
        source="mscoco",
        layout="train2014/, val2014/ and Karpathy's dataset_coco.json, whose split `train` is train2014 and whose "
        "other splits are val2014; or Parquet or tars with one row per image and its captions",
        image_size=256,
        condition="text",
        num_classes=1,
        num_images=82_783,
        nat_size="small",
        nat_steps=150_000,  # ours: no published figure is known
        text_encoder="openai/clip-vit-large-patch14",
        text_width=768,
        text_length=77,
        discriminator_condition="pooled text embedding",
        reference="fid_stats_mscoco256_val.npz",
        eval_images=30_000,
        eval_condition="captions of 30,000 images of val2014, one each, drawn with seed 0",
    ),
    "cc3m": Benchmark(
        source="pixparse/cc3m-wds",
        layout="cc3m_train.tsv (key, number, caption, base64 JPEG; cc3m_train.lineidx beside it) and cc3m_val.tsv "
        "(header caption, url); or webdataset tars, or Parquet",
        image_size=256,
        condition="text",
        num_classes=1,
        num_images=2_905_954,
        nat_size="muse",
        nat_steps=285_000,
        text_encoder="laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
        text_width=1280,
        text_length=77,
        policy_steps=(8,),
        discriminator_condition="pooled text embedding",
        reference="fid_stats_cc3m_val.npz",
        eval_images=30_000,
        eval_condition="captions of the validation split in turn, in an order drawn with seed 0",
    ),
}
"""By the name of ``--dataset``.

Sources: AdaNAT (arXiv 2409.00342) and the programs published with it. The statistics are named as U-ViT (arXiv
2209.12152) and the MUSE weights publish them; for ImageNet they hold guided diffusion's (arXiv 2105.05233) moments."""


def text_encoder_of(width: int) -> str:
    """The benchmarks' encoder whose states have this width, for NATs that do not name theirs.

    Raises:
        AdaNATError: if none has.
    """
    for benchmark in BENCHMARKS.values():
        if benchmark.text_width == width:
            return benchmark.text_encoder
    raise AdaNATError(
        f"The NAT reads text states of width {width} and does not name their encoder; give it with --text-encoder (a "
        "Hub id or a folder of a CLIP model)."
    )
