"""A NAT that starts from the weights of another: its shape, its rows of classes, and its first weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.checkpoints.token_identity import tokens_fingerprint
from adanat_cli.core.config import NAT_PRESETS, NATConfig
from adanat_cli.core.config.schema import conform
from adanat_cli.core.data.token_shards import TokenSetInfo
from adanat_cli.core.errors import require
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.resolve.classes import rows_by_name, same_names
from adanat_cli.jobs.resolve.models import load_nat, load_tokenizer, nat_config
from adanat_cli.jobs.train.start import Start

_CLASS_ROWS = "context_embed.word_embeddings.weight"
_CODE_DIMENSIONS = {"token_emb.word_embeddings.weight": 0, "mlm_layer.bias": -1}
"""Weights with a value for each code, and a last one for the mask, along this dimension."""
_SAME_NAMES = 0.9
"""Share of common names from which on two numberings are one; lists of the same classes differ in some words."""


@dataclass(frozen=True)
class ClassRows:
    """Where the rows of classes come from.

    Attributes:
        sources: (num_classes + 1,) int64, row of the model for every class and the null label.
        is_kept: whether both number their classes alike; otherwise rows were found by name.
        found: labels whose row is not the null row.
    """

    sources: Tensor
    is_kept: bool
    found: frozenset[int]

    def line(self, labels: Collection[int]) -> str:
        """Say where the rows of some classes come from."""
        num_found = len(self.found.intersection(labels))
        rows = "class row" if num_found == 1 else "class rows"
        return (
            f"{num_found} {rows} {'kept' if self.is_kept else 'taken by name'}, {len(labels) - num_found} from "
            "the null row"
        )


def start_shape(start: Start) -> NATConfig:
    """The shape to continue with: that of the run which is resumed, or of the model.

    Raises:
        AdaNATError: if it is damaged, or the model's NAT fits neither its weights nor its tokenizer.
    """
    if start.is_resumed:
        return NATConfig.from_dict(start.saved["nat"], "config.json of the run")
    return nat_config(start.folder)


def continues_tokenizer(model: ModelFolder, start: ModelFolder) -> bool:
    """Whether the tokens of ``model`` are new ones, of a tokenizer that was trained further from that of ``start``."""
    origin = model.index.provenance.get("tokenizer", {}).get("from", {})
    origin = conform(origin, Mapping[str, str], f"{model.path}/model_index.json: provenance.tokenizer.from")
    if not start.exists() or not start.has("tokenizer") or origin.get("weights") != start.fingerprint("tokenizer"):
        return False
    return tokens_fingerprint(model, check=False) != tokens_fingerprint(start, check=False)


def fit_to_tokens(base: NATConfig, size: str, info: TokenSetInfo, encoder: TextEncoder | None, name: str) -> NATConfig:
    """The same NAT for a token set, with rows for its classes.

    Args:
        base: shape of the NAT to start from.
        size: preset that was asked for; "" for none.
        info: description of the token set.
        encoder: text encoder of captions that are not encoded yet.
        name: name of the model, for messages.

    Raises:
        AdaNATError: naming what does not fit.
    """
    owner, other = f"the NAT of --from {name}", "choose another --from, or tokenize again with its tokenizer"
    preset = NAT_PRESETS.get(size, {})
    require(
        all(getattr(base, key) == preset[key] for key in ("width", "depth", "num_heads") if preset),
        f"--size {size} is another shape than that of {owner} (width {base.width}, depth {base.depth}, "
        f"{base.num_heads} heads), which stays as it is; leave --size out.",
    )
    words = {"class": "class labels", "text": "captions"}
    require(
        base.condition == info.condition,
        f"The token set holds {words[info.condition]}, but {owner} is conditioned on {words[base.condition]}; choose "
        "another --from.",
    )
    made_by = info.tokenizer_fingerprint
    for what, found, expected in (
        ("codebook size", info.codebook_size, base.codebook_size),
        ("grid", _grid(info.grid), _grid(base.grid)),
        ("tokenizer", made_by[:12], base.tokenizer_fingerprint[:12] or made_by[:12]),
    ):
        require(found == expected, f"The token set has {what} {found}, but {owner} has {expected}; {other}.")
    if info.condition == "class":
        return base.replace(num_classes=info.num_classes)
    if encoder is None and info.text_width:
        states = f"{info.text_length} x {info.text_width}", info.text_fingerprint
        fitting = f"{base.text_length} x {base.text_width}", base.text_fingerprint or info.text_fingerprint
        require(
            states == fitting,
            f"The captions were encoded by {info.text_encoder or 'an encoder'} {states[1][:12]} as {states[0]} states, "
            f"but {owner} reads {fitting[0]} of {base.text_encoder or 'an encoder'} {fitting[1][:12]}; tokenize again "
            "with that --text-encoder, or choose another --from.",
        )
    known = encoder.fingerprint if encoder else info.text_fingerprint
    return base.replace(text_fingerprint=base.text_fingerprint or known)


def _grid(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]}"


def class_rows(folder: ModelFolder, info: TokenSetInfo) -> ClassRows:
    """For every class of a token set, the row of the model that it starts from.

    Classes that are numbered as the model's keep their rows, others are found by name. A class that the model was
    never trained on starts from the null row, which was trained on images of all classes.
    """
    labels, num_known = folder.labels(), int(folder.config("nat")["num_classes"])
    is_kept = info.num_classes == num_known and same_names(info.class_names, labels, _SAME_NAMES)
    found = rows_by_name(info.class_names, labels)
    if is_kept:
        found = {label: label for label in labels or range(num_known)}
    sources = torch.full((info.num_classes + 1,), num_known)
    sources[list(found)] = torch.tensor(list(found.values()), dtype=torch.int64)
    return ClassRows(sources, is_kept, frozenset(found))


def code_rows(folder: ModelFolder, tokenizer: ModelFolder) -> Tensor:
    """For every code of a tokenizer that continues a model's, and the mask, the model's row to start from.

    A code starts from the row of the nearest of the model's codes, (K + 1,) int64.

    Raises:
        AdaNATError: if one of the tokenizers is damaged.
    """
    codes, known = (F.normalize(load_tokenizer(model).codebook, dim=-1) for model in (tokenizer, folder))
    return torch.cat([(codes @ known.T).argmax(-1), torch.tensor([len(known)])])


def first_weights(folder: ModelFolder, rows: ClassRows | None, codes: Tensor | None = None) -> Mapping[str, Tensor]:
    """Weights of a model's NAT, float32.

    Args:
        folder: the model.
        rows: where the rows of classes come from; None for a text model.
        codes: (K + 1,) int64, where the rows of codes and of the mask come from; None for those of the model.

    Raises:
        AdaNATError: if they are damaged, or do not fit the model's configuration or tokenizer.
    """
    weights = load_nat(folder).state_dict()
    moved = {_CLASS_ROWS: weights[_CLASS_ROWS][rows.sources]} if rows else {}
    if codes is not None:
        moved |= {name: weights[name].index_select(along, codes) for name, along in _CODE_DIMENSIONS.items()}
    return {**weights, **moved}
