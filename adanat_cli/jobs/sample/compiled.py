"""The NAT's body through torch.compile, for the shapes of a run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.runtime.compilation import explained_compilation

Body = Callable[[Tensor, Tensor], Tensor]
"""Maps (B, N) ids and their conditions to (B, N, D) features, as ``UViT.features`` does."""

_MOST_SHAPES = 64


class CompiledBody:
    """``UViT.features``, compiled for whole batches.

    Compiled code is for one number of rows. Fewer rows, such as those of a run's last batch, are padded to a number
    that is compiled already; more are compiled anew. On a GPU, the kernels of a forward start as one CUDA graph.
    """

    def __init__(self, nat: UViT, tell: Callable[[str], None]) -> None:
        """Compile nothing yet.

        Args:
            nat: NAT in evaluation mode.
            tell: called with a line before each compilation.
        """
        self._tell, self._known = tell, list[int]()
        self._on_gpu = next(nat.parameters()).device.type == "cuda"
        with explained_compilation():
            mode = "reduce-overhead" if self._on_gpu else None
            self._compiled = torch.compile(nat.features, dynamic=False, fullgraph=True, mode=mode)

    def __call__(self, token_ids: Tensor, condition: Tensor) -> Tensor:
        """Return the (B, N, D) features; arguments as those of ``UViT.features``.

        Raises:
            AdaNATError: if the NAT cannot be compiled on this machine.
        """
        number = len(token_ids)
        rows = min((known for known in self._known if known >= number), default=number)
        padding = rows - number
        padded = (torch.cat([part, part[-1:].expand(padding, *part.shape[1:])]) for part in (token_ids, condition))
        if rows in self._known:
            return self._run(*padded)[:number]
        self._tell(
            f"Compiling the NAT for {rows} rows at a time (an image has two under guidance), which may take a minute."
        )
        with explained_compilation():
            features = self._run(*padded)
        self._known.append(rows)
        return features

    def _run(self, token_ids: Tensor, condition: Tensor) -> Tensor:
        with torch._dynamo.config.patch(recompile_limit=_MOST_SHAPES):
            if not self._on_gpu:
                features: Tensor = self._compiled(token_ids, condition)
                return features
            torch.compiler.cudagraph_mark_step_begin()
            return self._compiled(token_ids, condition).clone()  # the next forward writes to the same memory
