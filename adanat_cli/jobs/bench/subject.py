"""What is measured: the networks of a model, or of a size with random weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adanat_cli.core.config import VQAEConfig, VQGANConfig, nat_preset
from adanat_cli.core.config.bench import BenchRequest
from adanat_cli.core.errors import require
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.resolve.models import load_nat, load_tokenizer, nat_config, resolve_model
from adanat_cli.jobs.sample.conditions import ClassConditions, Conditions

_OF_SMALL_IMAGES = ("nano", "micro", "tiny", "mini")
_NUM_PROMPTS = 1000


@dataclass(frozen=True)
class TextStates(Conditions):
    """Random states in place of encoded prompts, since no text is read.

    Attributes:
        shape: (L, D) of the states.
        device: where they are drawn.
    """

    shape: tuple[int, int]
    device: torch.device

    @property
    def null(self) -> Tensor:
        """(L, D) states of the empty prompt."""
        return self._draw(-1)

    def encode(self, numbers: Tensor) -> Tensor:
        """(B, L, D) states."""
        return torch.stack([self._draw(number) for number in numbers.tolist()])

    def embed(self, numbers: Tensor) -> Tensor:
        """No discriminator reads them."""
        return numbers

    def _draw(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(number + 1)
        return torch.randn(self.shape, generator=generator).to(self.device)


@dataclass(frozen=True)
class Subject:
    """Networks to measure.

    Attributes:
        name: model or size.
        nat, tokenizer: in evaluation mode.
        conditions: what the images are of.
    """

    name: str
    nat: UViT
    tokenizer: Tokenizer
    conditions: Conditions


def load_subject(request: BenchRequest, device: torch.device) -> Subject:
    """Load a model, or build the networks of a size.

    Raises:
        AdaNATError: if there is no such model, or its images have fewer tokens than there are steps.
    """
    if request.size is None:
        folder = resolve_model(request.model)
        nat, tokenizer, name = load_nat(folder, device), load_tokenizer(folder, device), folder.title
        known = sorted(folder.labels()) or list(range(nat_config(folder).num_classes))
    else:
        nat, tokenizer = _random(request, device)
        name, known = f"{request.size}, random weights", list(range(nat.config.num_classes))
    config = nat.config
    most = max(request.num_steps)
    require(
        most <= config.num_tokens,
        f"--steps is {most}, but images of {name} have {config.num_tokens} tokens; expected 1 to {config.num_tokens}.",
    )
    conditions: Conditions
    if config.condition == "text":
        turns = torch.arange(request.num_conditions or _NUM_PROMPTS)
        conditions = TextStates(turns, (config.text_length, config.text_width), device)
    else:
        asked = request.num_conditions or len(known)
        require(asked <= len(known), f"--num-classes is {asked}; expected 1 to {len(known)}, the classes of {name}.")
        conditions = ClassConditions(torch.tensor(known)[:asked], {})
    return Subject(name, nat.requires_grad_(False), tokenizer.requires_grad_(False), conditions)


def _random(request: BenchRequest, device: torch.device) -> tuple[UViT, Tokenizer]:
    """Networks of a size; the logits differ from token to token, as a trained NAT's do."""
    assert request.size is not None
    torch.manual_seed(request.seed)
    small = VQAEConfig(image_size=64, codebook_size=1024, code_width=16, channels=(32, 64, 128))
    shape = small if request.size in _OF_SMALL_IMAGES else VQGANConfig()
    nat = UViT(nat_preset(request.size, codebook_size=shape.codebook_size, grid=shape.grid)).eval()
    torch.nn.init.normal_(nat.mlm_layer.bias)
    return nat.to(device), build_tokenizer(shape).eval().to(device)
