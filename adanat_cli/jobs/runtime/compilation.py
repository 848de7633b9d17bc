"""What PyTorch's compiler raises, in one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from adanat_cli.core.errors import AdaNATError


@contextmanager
def explained_compilation() -> Iterator[None]:
    """Say in one line why compiled code cannot be made on this machine.

    Raises:
        AdaNATError: in place of an error of the compiler.
    """
    # Without a GPU, PyTorch's compiler warns of a CUDA toolkit that it does not need.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        yield
    except RuntimeError as error:
        of_compiler = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
        if not of_compiler and "torch.compile" not in str(error):
            raise  # such as too little memory
        reason = str(error).strip().partition("\n")[0]
        raise AdaNATError(
            f"torch.compile fails on this machine ({reason}); install what it needs, such as a C++ compiler, or "
            "leave --compile out."
        ) from error
