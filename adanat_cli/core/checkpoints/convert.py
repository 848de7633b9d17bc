"""From the names and shapes of the authors' weights to our components: kind and size of a network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adanat_cli.core.checkpoints.entries import choose, entries, shown, within
from adanat_cli.core.checkpoints.foreign import ForeignWeights
from adanat_cli.core.config import NAT_PRESETS, NATConfig, PolicyConfig, VQGANConfig
from adanat_cli.core.errors import AdaNATError

Kind = Literal["vqgan", "nat", "policy"]
PolicyLayout = Literal["training", "ppo", "bare"]

_MARKS: dict[Kind, tuple[str, ...]] = {
    "vqgan": ("encoder.conv_in.weight", "quantize.embedding.weight"),
    "nat": ("token_emb.word_embeddings.weight", "mlm_layer.fc.weight"),
    "policy": ("dw_conv.weight", "linear3.weight"),
}
"""Names of weights by which a network is recognised."""

_NAMES: dict[Kind, str] = {"vqgan": "VQGAN", "nat": "NAT", "policy": "policy"}

_LEFT_OUT: dict[Kind, re.Pattern[str]] = {
    # Networks of the training loss, in the checkpoints of taming-transformers and its descendants.
    "vqgan": re.compile(r"(loss|lpips|perceptual_loss|discriminator|model_ema)\..*"),
    # Constants in some files.
    "nat": re.compile(r"(.*\.)?position_ids"),
    "policy": re.compile(r"(?!)"),
}
"""Names that are left out."""

_EVALUATED, _CRITIC = "policy_old", "critic"
"""AdaNAT's training checkpoints hold four networks of the policy's shape; the actor of this one is evaluated."""

_VQGAN_RENAMES = (
    (re.compile(r"\.mid\.(\d+)\."), lambda match: f".mid.block_{int(match[1]) + 1}."),
    (re.compile(r"\.upsample_conv\."), lambda _: ".upsample.conv."),
)
"""open-muse and TiTok publish the same VQGAN under these names."""

_TEXT_LENGTH = 77
_REFERENCE_ORDER = (0, 2, 1, 3)
"""The authors' outputs are (r, tau2, tau1, w); ours are (r, tau1, tau2, w)."""


@dataclass(frozen=True)
class Network:
    """A network that was found in a file.

    Attributes:
        kind: kind of network.
        entry: location in the file; "" if the file is its state dict.
        tensors: weights, by the authors' names.
        passed_over: entries of the same kind that were not taken.
        left_out: names in the entry that are not weights of the network.
    """

    kind: Kind
    entry: str
    tensors: dict[str, Tensor]
    passed_over: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def layout(self) -> PolicyLayout:
        """How the file stores a policy: as AdaNAT's training checkpoints, as its PPO.save, or as AdaGen's files."""
        parts = self.entry.split(".")
        if parts[-1] != "actor":
            return "bare"
        return "training" if parts[-2:-1] == [_EVALUATED] else "ppo"


def identify(weights: ForeignWeights, kind: Kind | None = None, entry: str = "") -> Network:
    """Find the network to import from a file, by the names of its weights.

    Args:
        weights: the file.
        kind: kind of network; None for any.
        entry: entry of the file to search; "" searches all, and prefers an average to live weights.

    Raises:
        AdaNATError: if there is no known network, or several.
    """
    source = str(weights.path)
    found = {
        (known, name): tensors
        for known, marks in _MARKS.items()
        for name, tensors in entries(weights, marks).items()
        if name.rpartition(".")[2] != _CRITIC
    }
    of_kind = [key for key in found if kind in (None, key[0])]
    wanted = within([name for _, name in of_kind], entry)
    fitting = [key for key in of_kind if key[1] in wanted]
    if not fitting:
        raise AdaNATError(_not_found(weights, list(found), kind, entry))
    if len({key[0] for key in fitting}) > 1:
        raise AdaNATError(f"{source} holds {_listed(fitting)}; choose one of them with --entry or --kind.")
    known, names = fitting[0][0], [name for _, name in fitting]
    taken = choose(names, source, _EVALUATED)
    tensors = found[known, taken]
    left_out = [name for name in tensors if _LEFT_OUT[known].fullmatch(name) or not tensors[name].dim()]
    return Network(
        known,
        taken,
        {name: tensor for name, tensor in tensors.items() if name not in left_out},
        tuple(name for name in names if name != taken),
        tuple(left_out),
    )


def _listed(found: Sequence[tuple[Kind, str]]) -> str:
    return ", ".join(f"a {_NAMES[known]} at {shown(name)}" for known, name in found[:5])


def _not_found(weights: ForeignWeights, found: Sequence[tuple[Kind, str]], kind: Kind | None, entry: str) -> str:
    """Message: why no network was found."""
    source, of_kind = weights.path, [key for key in found if kind in (None, key[0])]
    if of_kind:
        return (
            f"{source} has no known network at {shown(entry)}, but {_listed(of_kind)}; give one of these as --entry, "
            "or leave it out. Files with different entries are imported one at a time."
        )
    if kind and found:
        return f"{source} is not a {_NAMES[kind]}: it holds {_listed(found)}; leave --kind out, or give another file."
    names = [name for tensors in weights.state_dicts.values() for name in tensors]
    return (
        f"{source} holds {len(names)} tensors, such as {', '.join(map(shown, names[:3]))}, which belong to no "
        "known network; expected a MaskGIT VQGAN, an AutoNAT/AdaNAT transformer or an AdaNAT/AdaGen policy."
    )


def widened(tensor: Tensor) -> Tensor:
    """Return 8-bit floats, which model folders cannot store, as float32; other tensors unchanged."""
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def vqgan_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a VQGAN's weights under the authors' names, whichever published names they have."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _VQGAN_RENAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    return renamed


def num_vqgan_levels(tensors: Mapping[str, Tensor]) -> int:
    """Number of resolutions of a VQGAN; at least 1."""
    return max(1, _count(tensors, "encoder.down"))


def vqgan_config(tensors: Mapping[str, Tensor], image_size: int, source: str) -> VQGANConfig:
    """Infer a VQGAN's configuration from its weights; they do not determine the image size.

    Raises:
        AdaNATError: if a required weight is missing, or the sizes are not those of a VQGAN.
    """
    codes = _shape(tensors, "quantize.embedding.weight", 2, "VQGAN", source)
    base = _shape(tensors, "encoder.conv_in.weight", 4, "VQGAN", source)[0]
    levels = _count(tensors, "encoder.down")
    widths = [
        _shape(tensors, f"encoder.down.{level}.block.0.conv1.weight", 4, "VQGAN", source)[0] for level in range(levels)
    ]
    if not widths or any(width % base for width in widths):
        raise AdaNATError(f"{source} is not a VQGAN: its widths {widths} are not multiples of the first, {base}.")
    return VQGANConfig(
        image_size=image_size,
        codebook_size=codes[0],
        code_width=codes[1],
        base_channels=base,
        channel_multipliers=tuple(width // base for width in widths),
        num_res_blocks=_count(tensors, "encoder.down.0.block"),
    )


def nat_config(tensors: Mapping[str, Tensor], num_heads: int | None, source: str) -> NATConfig:
    """Infer a NAT's configuration from its weights; they do not determine the number of heads.

    Args:
        tensors: the state dict.
        num_heads: attention heads; None for those of the preset of the same width.
        source: the file, for messages.

    Raises:
        AdaNATError: if a required weight is missing, or the number of heads is unknown.
    """
    num_words, width = _shape(tensors, "token_emb.word_embeddings.weight", 2, "NAT", source)
    num_tokens = _shape(tensors, "token_emb.position_embeddings.weight", 2, "NAT", source)[0]
    hidden = _shape(tensors, "mid_block.mlp.fc1.weight", 2, "NAT", source)[0]
    side = math.isqrt(num_tokens)
    if side * side != num_tokens or hidden % width:
        raise AdaNATError(
            f"{source} is not a NAT: {num_tokens} positions and an MLP of {hidden} over width {width}; expected a "
            "square grid and a multiple of the width."
        )
    heads = num_heads or {row["width"]: row["num_heads"] for row in NAT_PRESETS.values()}.get(width)
    if heads is None:
        raise AdaNATError(f"{source} is a NAT of width {width}, which no preset has; give its --num-heads.")
    if "context_embed.weight" in tensors:
        text_width = _shape(tensors, "context_embed.weight", 2, "NAT", source)[1]
        condition = {"condition": "text", "text_width": text_width, "text_length": _TEXT_LENGTH}
    else:
        # The last row is the null label.
        rows = _shape(tensors, "context_embed.word_embeddings.weight", 2, "NAT", source)[0]
        condition = {"condition": "class", "num_classes": rows - 1}
    return NATConfig.from_dict(
        {
            "codebook_size": num_words - 1,  # the last word is the mask
            "grid": (side, side),
            "width": width,
            "depth": _count(tensors, "in_blocks") + _count(tensors, "out_blocks"),
            "num_heads": heads,
            "mlp_ratio": hidden // width,
            **condition,
        },
        source,
    )


def policy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reorder a policy's outputs from the authors' order to ours."""
    taken = dict(tensors)
    for name in ("linear3.weight", "linear3.bias"):
        if name in taken and taken[name].dim() and len(taken[name]) == len(_REFERENCE_ORDER):
            taken[name] = taken[name][torch.tensor(_REFERENCE_ORDER)]
    return taken


def policy_config(
    tensors: Mapping[str, Tensor],
    num_steps: int,
    residual: bool,
    smoothing: float,
    grid: tuple[int, int] | None,
    source: str,
) -> PolicyConfig:
    """Infer a policy's configuration from its weights (as ``policy_tensors`` returns them).

    Args:
        tensors: the state dict.
        num_steps: T that it was trained for; the weights determine neither this nor the next two.
        residual: whether its outputs are added to the base schedule.
        smoothing: over the steps, as in ``PolicyConfig``.
        grid: grid of its NAT, (rows, columns); None for the square grid with even sides that fits.
        source: the file, for messages.

    Raises:
        AdaNATError: if a required weight is missing, or it is not a policy of four values on this grid.
    """
    hidden = _shape(tensors, "dw_conv.weight", 4, "policy", source)[0]
    channels = _shape(tensors, "pw_conv.weight", 4, "policy", source)[0]
    flattened = _shape(tensors, "linear1.weight", 2, "policy", source)[1]
    num_outputs = _shape(tensors, "linear3.weight", 2, "policy", source)[0]
    if num_outputs != len(_REFERENCE_ORDER):
        raise AdaNATError(
            f"{source} gives {num_outputs} values per step; expected a policy with {len(_REFERENCE_ORDER)}."
        )
    num_positions = flattened // channels
    side = 2 * math.isqrt(num_positions)
    found = grid or (side, side)
    if math.ceil(found[0] / 2) * math.ceil(found[1] / 2) != num_positions:
        raise AdaNATError(
            f"{source} is a policy for a grid of about {side} x {side} tokens, but the NAT's is {found[0]} x "
            f"{found[1]}; import it into the model that it was trained with."
        )
    entered = "x_embedder.weight" in tensors
    feature_width = _shape(tensors, "x_embedder.weight", 2, "policy", source)[1] if entered else hidden
    return PolicyConfig(
        feature_width=feature_width,
        grid=found,
        num_steps=num_steps,
        hidden_width=hidden,
        residual=residual,
        smoothing=smoothing,
    )


def _shape(tensors: Mapping[str, Tensor], name: str, num_dims: int, kind: str, source: str) -> tuple[int, ...]:
    """Shape of a required weight, with ``num_dims`` dimensions, all of them at least 1."""
    shape = tuple(tensors[name].shape) if name in tensors else ()
    if len(shape) != num_dims or 0 in shape:
        found = f"{name} has shape {shape}, not {num_dims} dimensions" if name in tensors else f"it has no {name}"
        raise AdaNATError(f"{source} is not a {kind}: {found}; leave --kind out, or give another file.")
    return shape


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Number of different indices that follow a prefix."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return len({match[1] for name in tensors if (match := pattern.match(name))})
