"""Networks built around given weights: all names and shapes must fit, and no time is spent on initialization."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from adanat_cli.core.errors import AdaNATError

Module = TypeVar("Module", bound=nn.Module)


def load_strict(build: Callable[[], Module], tensors: Mapping[str, Tensor], source: str) -> Module:
    """Build a module around the given weights: float32, evaluation mode.

    Args:
        build: makes the module, with any values.
        tensors: complete state dict.
        source: where the weights are from, for the message.

    Raises:
        AdaNATError: if a name is missing or unknown, a shape or type differs, or values are not finite.
    """
    module = _without_values(build)
    _check(module, tensors, source)
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    if any(name not in state for name, _ in [*module.named_parameters(), *module.named_buffers()]):
        module = build()  # buffers that are not in the state dict need their values
        module.load_state_dict(state)
    else:
        module.load_state_dict(state, assign=True)
    return module.eval()


def check_weights(build: Callable[[], nn.Module], tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse a state dict whose names, shapes or types are not those of the module, or with values that are not finite.

    Raises:
        AdaNATError: naming the first that differ.
    """
    _check(_without_values(build), tensors, source)


@contextmanager
def without_values() -> Iterator[None]:
    """Let what is built in the block have tensors of the meta device, which take no memory."""
    with torch.device("meta"), _SkipInitialization():
        yield


def _without_values(build: Callable[[], Module]) -> Module:
    with without_values():
        return build()


class _SkipInitialization(TorchFunctionMode):
    """Skip functions that fill tensors.

    On meta tensors they have no effect, but make PyTorch load its compiler, which takes a second.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, keywords = getattr(func, "__name__", ""), kwargs or {}
        if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":
            return args[0] if args else keywords["tensor"]  # torch.nn.init passes its tensor by keyword
        if func is torch.randn:
            func, keywords = torch.empty, {name: value for name, value in keywords.items() if name != "generator"}
        return func(*args, **keywords)


def _check(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Compare names, shapes and types, then look for values that are not finite."""
    state = module.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = [
        *(f"missing {name}" for name in expected if name not in shapes),
        *(f"unknown {name}" for name in shapes if name not in expected),
        *(
            f"{name} is {shapes[name]} instead of {expected[name]}"
            for name in expected
            if name in shapes and shapes[name] != expected[name]
        ),
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise AdaNATError(
            f"Weights of {source} do not fit the network: {', '.join(problems[:3])}{more}; the file is damaged or "
            "of another version."
        )
    for name, tensor in tensors.items():
        floats = tensor.is_floating_point()
        if floats != state[name].is_floating_point() or tensor.is_complex():
            kind = str(tensor.dtype).removeprefix("torch.")
            expected_kind = "floating-point numbers" if state[name].is_floating_point() else "integers"
            raise AdaNATError(f"Weights of {source} are damaged: {name} is of type {kind}; expected {expected_kind}.")
        if floats and not bool(tensor.float().isfinite().all()):
            raise AdaNATError(
                f"Weights of {source} are damaged: {name} holds values that are not finite; train or fetch them again."
            )
