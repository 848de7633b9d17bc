"""Pre-trained networks from the Hugging Face Hub or local files: CLIP through transformers, others through timm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from safetensors import SafetensorError
from torch import Tensor, nn

from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import one_line

_WEIGHTS = "model.safetensors"
_MOST_BYTES = 2**35
"""Upper bound for a CLIP on the Hub: some ten times the largest."""


class Frozen(nn.Module):
    """A network that never learns and is always in evaluation mode."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)


class Normalization(nn.Module):
    """The shift and scale of each channel that a pre-trained network expects of its images."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the mean and standard deviation of each channel, for images in [0, 1]."""
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", Tensor(list(mean)).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", Tensor(list(std)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std, of the same shape (B, C, H, W)."""
        return (images - self.mean) / self.std


def require_reachable(repo: str, filename: str, revision: str | None = None) -> None:
    """Ask the Hub once for a file that is not in the cache.

    Without a network, the libraries' own downloads retry for most of a minute before they fail.

    Raises:
        OSError: if the file cannot be fetched.
    """
    if isinstance(try_to_load_from_cache(repo, filename, revision=revision), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(repo, filename, revision=revision))
    except Exception as error:  # the errors' classes differ between versions of the library
        raise OSError(one_line(error)) from error


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Silence progress bars of transformers, and its list of the unused tower's weights."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_clip(model: str, architecture: str, what: str, processor: bool = False) -> tuple[Any, Any, Any]:
    """Load a model of CLIP's architecture, in float32; code from a repository is never run, pickles never read.

    Args:
        model: Hub id ``user/name[@revision]``, or a local folder.
        architecture: class of transformers, such as "CLIPModel" or "CLIPTextModelWithProjection".
        what: purpose of the model, for messages, such as "Text encoder".
        processor: whether to load its image processor as well.

    Returns:
        Network, tokenizer, and image processor or None.

    Raises:
        AdaNATError: if transformers is not installed, or the model cannot be loaded.
    """
    try:
        import transformers
    except ImportError as error:
        raise AdaNATError(
            f"{what} {model!r} needs transformers, which is not installed; try: pip install 'adanat[text]'."
        ) from error
    advice = (
        "give the id of a CLIP model on the Hub, or a local folder with its config.json, model.safetensors, "
        f"{'preprocessor_config.json ' if processor else ''}and tokenizer files"
    )
    is_folder = Path(model).is_dir()
    name, _, revision = (model, "", "") if is_folder else model.partition("@")
    options = {"revision": revision} if revision else {}
    try:
        if not is_folder:
            require_reachable(name, "config.json", revision or None)
        config = transformers.AutoConfig.from_pretrained(name, **options)
        require(
            config.model_type in ("clip", "clip_text_model"),
            f"{what} {model!r} is of type {config.model_type}; {advice}.",
        )
        num_bytes = sum(file.stat().st_size for file in Path(name).glob("*.safetensors")) if is_folder else _MOST_BYTES
        if not 0 <= _num_weights(config) <= num_bytes:  # checked before a network of that size is built
            raise ValueError("its config.json describes a larger network than its weights")
        with _quietly(transformers):
            loaded: Any = getattr(transformers, architecture).from_pretrained(
                name, use_safetensors=True, output_loading_info=True, dtype="float32", **options
            )
        network, report = loaded
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
        images = transformers.CLIPImageProcessor.from_pretrained(name, **options) if processor else None
        _check_parts(config, network, tokenizer)
    except AdaNATError:
        raise
    except Exception as error:  # for damaged files the two libraries raise all kinds of exceptions
        raise AdaNATError(f"{what} {model!r} cannot be loaded ({one_line(error)}); {advice}.") from error
    # transformers fills missing weights with random numbers.
    require(
        not report["missing_keys"],
        f"{what} {model!r} lacks weights ({', '.join(sorted(report['missing_keys'])[:3])}); {advice}.",
    )
    return network.eval().requires_grad_(False), tokenizer, images


def _check_parts(config: Any, network: Any, tokenizer: Any) -> None:
    """Refuse incompatible parts, and weights that are not finite."""
    text = getattr(config, "text_config", config)  # the text tower's, of a whole CLIP
    if max(tokenizer.get_vocab().values()) >= text.vocab_size:
        raise ValueError("its tokenizer has more words than its embedding")
    if type(text.eos_token_id) is not int:
        raise ValueError("its eos_token_id is not a number")
    strange = (key for key, weights in network.state_dict().items() if not weights.isfinite().all())
    if found := next(strange, ""):
        raise ValueError(f"{found} holds values that are not finite")


def _num_weights(config: Any) -> int:
    """Approximate number of parameters of a CLIP or one of its towers."""
    text = getattr(config, "text_config", config)
    towers = {id(part): part for part in (text, getattr(config, "vision_config", text))}.values()
    return sum(
        part.hidden_size * (part.num_hidden_layers * (4 * part.hidden_size + 2 * part.intermediate_size))
        + part.hidden_size * getattr(part, "vocab_size", 0)
        for part in towers
    )


def require_timm(name_or_file: str, what: str, advice: str, pretrained: bool = True) -> None:
    """Check that ``load_timm`` will find its weights; downloads nothing.

    Raises:
        AdaNATError: if not.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        # RuntimeError: torchvision, which timm imports, was built for another PyTorch.
        raise AdaNATError(
            f"timm cannot be imported ({one_line(error)}); install it, and torchvision from the same index as PyTorch."
        ) from error
    name, _, file = name_or_file.partition("=")
    if file:
        require(
            Path(file).suffix == ".safetensors",
            f"{what} {file} is not a .safetensors file, and no other kind is read; {advice}.",
        )
        require(Path(file).is_file(), f"{what} {file} does not exist; {advice}.")
    if not pretrained or file:
        return
    try:
        config = timm.get_pretrained_cfg(name)
        if config is None or not config.hf_hub_id:
            raise ValueError("timm has no weights of this name")
        require_reachable(config.hf_hub_id, _WEIGHTS)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise AdaNATError(f"{what} {name_or_file!r} cannot be loaded ({one_line(error)}); {advice}.") from error


def load_timm(name_or_file: str, what: str, advice: str, pretrained: bool = True, features_only: bool = False) -> Any:
    """Build a network of timm without a head; pickled weights are never read, not even as a fallback.

    Args:
        name_or_file: name in timm, or ``NAME=FILE.safetensors`` for local weights.
        what: purpose of the network, for messages, such as "Discriminator backbone".
        advice: what to try if it cannot be loaded.
        pretrained: False leaves the weights random and downloads nothing, unless a file is given.
        features_only: whether it returns the feature maps of its levels instead of one vector.

    Raises:
        AdaNATError: if timm cannot be imported or lacks the network, or its weights cannot be loaded.
    """
    require_timm(name_or_file, what, advice, pretrained)
    import timm

    name, _, file = name_or_file.partition("=")
    overlay = {"file": file} if file else {"hf_hub_filename": _WEIGHTS}
    shape = {"features_only": True} if features_only else {"num_classes": 0}
    random_state = torch.get_rng_state()
    try:
        model = timm.create_model(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **shape)
        if pretrained and file and (left := _left_random(model, name, shape, random_state)):
            raise ValueError(f"its weights are of another network: {left} is not among them")
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise AdaNATError(f"{what} {name_or_file!r} cannot be loaded ({one_line(error)}); {advice}.") from error
    return model


def _left_random(model: nn.Module, name: str, shape: dict[str, Any], random_state: torch.Tensor) -> str:
    """Name of a weight that is still random after loading, or "": timm ignores weights that a file lacks."""
    import timm

    now = torch.get_rng_state()
    torch.set_rng_state(random_state)
    drawn = dict(timm.create_model(name, pretrained=False, **shape).named_parameters())
    torch.set_rng_state(now)
    for parameter, value in model.named_parameters():
        if parameter.endswith(".weight") and value.ndim > 1 and torch.equal(value, drawn[parameter]):
            return parameter
    return ""
