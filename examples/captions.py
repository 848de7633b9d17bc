"""Text to image in miniature: pictures of a few shapes, with captions that describe them.

    python examples/captions.py [FOLDER]

Nothing is downloaded: the data set is made here (one to three shapes in one of six colours, two captions for each
picture), and so is the text encoder, a CLIP of two layers with random weights. The tokens are the mean colours of 2 x 2
pixels. A small NAT is trained on tokens and captions, a policy learns to generate in four steps, and all combinations
of number, colour and shape are drawn from their prompts. The script then measures the fraction of pictures with the
prompt's colour, and with its number of shapes, and runs ``adanat evaluate`` on the same prompts. The CLIP score only
shows the command: that of a random CLIP means nothing. ``--quick`` is the short form that the tests run.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import FeatureConfig, data_config
from adanat_cli.core.data.captions import caption_pool, telling_words
from adanat_cli.core.data.sources import open_source
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.features import train_feature_network

Picture = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (255, 0, 255),
    "white": (255, 255, 255),
}
NUMBERS = {"one": 1, "two": 2, "three": 3}
SHAPES = {
    "square": ("####", "####", "####", "####"),
    "cross": (".##.", "####", "####", ".##."),
    "ring": ("####", "#..#", "#..#", "####"),
}
SMALL_SHAPES = {"square": ("##", "##"), "corner": ("##", "#."), "stripe": ("##", "..")}
PLURALS = {"square": "squares", "cross": "crosses", "ring": "rings", "corner": "corners", "stripe": "stripes"}
PATCH = 2
"""Side of a token, in pixels."""
LENGTH = 6
"""Text tokens of a prompt: start, at most four words, and end."""
What = tuple[str, str, str]
"""Number, colour and shape of a picture, in words."""


@dataclass(frozen=True)
class World:
    """The pictures that can be drawn; a shape fills a quarter of a picture."""

    colours: tuple[str, ...] = tuple(COLOURS)
    numbers: tuple[str, ...] = tuple(NUMBERS)
    shapes: tuple[str, ...] = tuple(SHAPES)
    masks: Mapping[str, Sequence[str]] = field(default_factory=lambda: SHAPES)

    @property
    def size(self) -> int:
        """Side of a picture, in pixels."""
        return 2 * PATCH * len(self.masks["square"])

    def combinations(self) -> list[What]:
        """Return all combinations of number, colour and shape."""
        return list(product(self.numbers, self.colours, self.shapes))

    def draw(self, what: What, rng: np.random.Generator) -> Picture:
        """Return (H, W, 3) bytes: shapes in random quarters of a black picture."""
        number, colour, shape = what
        mask = np.array([[cell == "#" for cell in row] for row in self.masks[shape]]).repeat(PATCH, 0).repeat(PATCH, 1)
        pixels, half = np.zeros((self.size, self.size, 3), np.uint8), self.size // 2
        for quarter in rng.permutation(4)[: NUMBERS[number]]:
            top, left = half * (quarter // 2), half * (quarter % 2)
            pixels[top : top + half, left : left + half][mask] = COLOURS[colour]
        return pixels

    def seen(self, picture: Picture) -> tuple[str, int]:
        """Return the most frequent colour of a picture's lit pixels, and the number of quarters that are lit."""
        lit, half = picture.max(-1) > 127, self.size // 2
        if not lit.any():
            return "", 0
        colours, counts = np.unique(picture[lit] > 127, axis=0, return_counts=True)
        found = tuple(255 * int(channel) for channel in colours[counts.argmax()])
        corners = product((0, half), (0, half))
        quarters = [lit[top : top + half, left : left + half].mean() > 0.3 for top, left in corners]
        return next((name for name, colour in COLOURS.items() if colour == found), ""), sum(map(int, quarters))


SMALL = World(("red", "green", "blue", "yellow"), ("one", "two"), tuple(SMALL_SHAPES), SMALL_SHAPES)
"""The pictures of the short form: 4 x 4 tokens."""


def captions(what: What) -> list[str]:
    """Return two captions of a picture."""
    number, colour, shape = what
    noun = shape if number == "one" else PLURALS[shape]
    return [f"{number} {colour} {noun}", f"{number} {noun} of {colour}"]


def write_pictures(folder: Path, world: World, num_images: int) -> Path:
    """Write Parquet files of the training and validation split, with two captions for each picture."""
    folder.mkdir(parents=True, exist_ok=True)
    combinations = world.combinations()
    for split, total, seed in (("train", num_images, 0), ("validation", max(num_images // 8, len(combinations)), 1)):
        rng = np.random.default_rng(seed)
        images, texts = [], []
        for what in islice(cycle(combinations), total):
            file = io.BytesIO()
            Image.fromarray(world.draw(what, rng)).save(file, "PNG")
            images.append({"bytes": file.getvalue(), "path": None})
            texts.append(captions(what))
        pq.write_table(pa.table({"image": images, "captions": texts}), folder / f"{split}.parquet")
    return folder


def write_encoder(folder: Path, image_size: int, width: int = 32) -> Path:
    """Write a CLIP of two layers with random weights and the captions' vocabulary."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "<unk>", "of", *NUMBERS, *COLOURS, *PLURALS, *PLURALS.values(), "<start>", "<end>"]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(word, ids[word]) for word in ("<start>", "<end>")]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>"
    ).save_pretrained(folder)
    tower = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **tower,
        "vocab_size": len(words),
        "max_position_embeddings": LENGTH,
        "bos_token_id": ids["<start>"],
        "eos_token_id": ids["<end>"],
        "pad_token_id": 0,
        "projection_dim": width,
        "initializer_factor": 20.0,  # random embeddings of the usual size would hardly tell words apart
    }
    vision = {**tower, "image_size": image_size, "patch_size": 4}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)
    )
    model.save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    ).save_pretrained(folder)
    return folder


def adanat(*arguments: object) -> dict[str, Any]:
    """Run a command in this process, and return its JSON result."""
    print("adanat", *arguments, flush=True)
    done = CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu", "--json"])
    if done.exit_code:
        raise SystemExit(f"adanat {arguments[0]} failed: {done.stderr or done.exception}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(samples: Path, world: World) -> dict[str, float]:
    """Return the fractions of pictures with the colour and the number of their prompts."""
    with np.load(samples / "samples.npz", allow_pickle=False) as arrays:
        pictures, prompts = arrays["arr_0"], arrays["arr_1"]
    combinations, right_colour, right_number = world.combinations(), [], []
    for picture, prompt in zip(pictures, prompts, strict=True):
        (colour, number), wanted = world.seen(picture), combinations[prompt]
        right_colour.append(colour == wanted[1])
        right_number.append(number == NUMBERS[wanted[0]])
    return {"colour": float(np.mean(right_colour)), "number": float(np.mean(right_number))}


def train(folder: Path, world: World, quick: bool) -> str:
    """Make the data, tokenize it and train the NAT; return the model folder."""
    pictures = write_pictures(folder / "pictures", world, 480 if quick else 5400)
    encoder = write_encoder(folder / "clip", world.size)
    data = ("--dataset", pictures, "--image-size", world.size)
    pixels = ("--downsampling", PATCH, "--codebook-size", 8, "--colour")
    tokenizer = adanat("train-tokenizer", *data, *pixels, "--output", folder / "pixels")["model"]
    tokens = ("--encode-captions", "--text-encoder", encoder, "--output", folder / "tokens")
    adanat("tokenize", *data, "--tokenizer", tokenizer, "--no-flips", *tokens)
    size = ("--size", "nano", "--updates", 240, "--batch-size", 48) if quick else ("--size", "micro", "--updates", 4000)
    rates = ("--learning-rate", 4e-3, "--warmup-steps", 10, "--beta1", 0.9, "--beta2", 0.98, "--ema-decay", 0.95)
    rates += ("--decay", "constant", "--code-init", 0, "--held-out", 0 if quick else 0.01)
    long = () if quick else ("--learning-rate", 2e-3, "--batch-size", 64, "--decay", "cosine", "--ema-decay", 0.99)
    inputs = ("--dataset", pictures, "--tokens", folder / "tokens", "--model", tokenizer, "--precision", "fp32")
    return str(adanat("pretrain-nat", *inputs, *size, *rates, *long, "--output", folder / "nat")["model"])


def write_quick_features(folder: Path, world: World, model: str) -> None:
    """Give the model a feature network after 20 updates, so that train-policy does not train one at length."""
    source = open_source(data_config(str(folder / "pictures"), image_size=world.size))
    words = telling_words(caption_pool(source, 0))
    config = FeatureConfig(image_size=world.size, num_classes=len(words), channels=(16, 32))
    network = train_feature_network(source, config, 20, 32, 3e-3, 0, "cpu", SilentReporter(), words=words)
    ModelFolder(model).write("features", config.to_dict(), network.state_dict())


def run(folder: Path, quick: bool) -> dict[str, dict[str, float]]:
    """Train, draw and measure; return the fractions of right colours and numbers for each schedule."""
    world = SMALL if quick else World()
    model = train(folder, world, quick)
    if quick:
        write_quick_features(folder, world, model)
    inputs = ("--dataset", folder / "pictures", "--model", model, "--steps", 4, "--recipe", "default")
    length = ("--updates", 1, "--trajectories", 16, "--eval-images", 32) if quick else ("--updates", 20)
    small = ("--hidden-width", 32, "--discriminator", "pyramid", "--discriminator-updates", 2 if quick else 10)
    adanat("train-policy", *inputs, *length, *small, "--install", "--output", folder / "policy")
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"{captions(what)[0]}\n" for what in world.combinations()))
    images = ("--prompts", prompts, "--num-images", 2 * len(world.combinations()), "--format", "npz")
    results = {}
    for schedule, steps in (("cosine", 8), ("learned", 4)):
        output = folder / f"samples-{schedule}"
        adanat("sample", "--model", model, *images, "--steps", steps, "--schedule", schedule, "--output", output)
        results[schedule] = measure(output, world)
    evaluate(folder, world, model, prompts)
    draw_grid(folder / "captions.png", folder / "samples-cosine", world)
    return results


def evaluate(folder: Path, world: World, model: str, prompts: Path) -> None:
    """Measure both schedules against the validation pictures."""
    held_out = ("--dataset", folder / "pictures", "--image-size", world.size, "--split", "validation")
    adanat("stats", *held_out, "--model", model, "--output", folder / "stats.npz")
    images = ("--prompts", prompts, "--num-samples", 10 * len(world.combinations()), "--clip", folder / "clip")
    schedules = ("--steps", 4, "--schedule", "cosine", "--schedule", "learned", "--output", folder / "evaluation")
    for row in adanat("evaluate", "--model", model, "--ref", folder / "stats.npz", *images, *schedules)["results"]:
        distance, score = (row["metrics"][name] for name in ("fid", "clip_score"))
        print(f"{row['name']}: distance {distance:.3f}; CLIP score {score:.1f}, by a CLIP of random weights")


def draw_grid(path: Path, samples: Path, world: World) -> None:
    """Draw one picture of each prompt, with the prompt as its title."""
    from matplotlib.figure import Figure

    combinations = world.combinations()
    with np.load(samples / "samples.npz", allow_pickle=False) as arrays:
        pictures = arrays["arr_0"][: len(combinations)]
    columns = 9 if len(combinations) % 9 == 0 else 8
    rows = len(combinations) // columns
    figure = Figure(figsize=(1.4 * columns, 1.6 * rows), layout="constrained")
    for axes, picture, what in zip(figure.subplots(rows, columns).flat, pictures, combinations, strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(captions(what)[0], fontsize=7)
        axes.set_axis_off()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run, and print the fractions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/captions"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    for schedule, right in run(options.folder, options.quick).items():
        print(f"{schedule}: right colour {right['colour']:.0%}, right number {right['number']:.0%}")


if __name__ == "__main__":
    main()
