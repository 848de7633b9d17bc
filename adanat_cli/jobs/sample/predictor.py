"""The NAT in the form that generation calls, without a forward or a row of logits that nothing needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import Prediction, Predictor
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.sample.compiled import Body
from adanat_cli.jobs.sample.conditions import Conditions

_NULL = -1
"""Stands for the null condition where conditions are numbered, as ``NO_CAPTION`` does among captions."""

_FEWEST_ROWS = 8
"""Rows of the head's matrix products: with fewer than four, a CPU's libraries round differently, and an image must not
depend on its batch."""

_MAX_BYTES = 2**30
"""Most that the kept features take; those of ImageNet's 1,000 classes take 0.8 GB under the NAT `large`."""


class ConditionedNAT:
    """A NAT under the conditions of a run.

    Before the first step, all tokens are masked, so the NAT's features depend on the condition alone. They are computed
    once for each class (or prompt) and for the null condition, and kept for all images of the run, as long as
    they fit in 1 GiB. The weights must not change meanwhile.
    """

    def __init__(
        self,
        nat: UViT,
        conditions: Conditions,
        precision: torch.dtype = torch.float32,
        body: Body | None = None,
    ) -> None:
        """Take a NAT.

        Args:
            nat: NAT in evaluation mode.
            conditions: what the images are of.
            precision: number format of the network; logits are float32 in any case.
            body: computes the features of whole batches, after the first step; None for ``nat.features``.

        Raises:
            ValueError: if the NAT is in training mode.
        """
        if nat.training:
            raise ValueError("generation needs the NAT in evaluation mode; call nat.eval()")
        self.nat, self.conditions, self.precision = nat, conditions, precision
        self.device = next(nat.parameters()).device
        self._body = body or nat.features
        self._kept: dict[int, Tensor] = {}
        self._null = self._encode_null()

    @property
    def num_kept(self) -> int:
        """Conditions, with the null condition, whose features before the first step are known."""
        return len(self._kept)

    def predictor(self, numbers: Tensor) -> Predictor:
        """Return the predictor of B images, given the numbers (B,) of their conditions."""
        numbers = numbers.to(self.device)
        condition = self.conditions.encode(numbers).to(self.device)
        is_class = self.nat.config.condition == "class"
        # Guidance of the null label against itself would change nothing.
        guidable = numbers != self.nat.config.num_classes if is_class else torch.ones_like(numbers, dtype=torch.bool)

        def predict(state: DecodingState, guided: Tensor) -> Prediction:
            guided = guided & guidable
            with torch.no_grad(), self._autocast():
                if state.step == 0 and bool(state.mask.all()):
                    return self._first(numbers.tolist(), condition, guided)
                return self._later(state, condition, guided)

        return predict

    def features(self, token_ids: Tensor, numbers: Tensor) -> Tensor:
        """Return the (B, N, D) features of (B, N) token ids under the conditions of these numbers (B,)."""
        with torch.no_grad(), self._autocast():
            return self.nat.features(token_ids, self.conditions.encode(numbers))

    def _later(self, state: DecodingState, condition: Tensor, guided: Tensor) -> Prediction:
        """Run the conditional half, and the null half of guided samples, as one batch."""
        rows = guided.nonzero()[:, 0]
        token_ids = torch.cat([state.token_ids, state.token_ids[rows]])
        features = self._body(token_ids, torch.cat([condition, self._nulls(len(rows))]))
        given, null = features.split([len(condition), len(rows)])
        sample, position = state.masked
        if not len(rows):
            return Prediction(self._head(given[sample, position], given[:0, 0])[0], None, given)
        place = guided.cumsum(0)[sample] - 1  # of a guided sample in the null half
        logits, null_logits = self._head(given[sample, position], null[place, position])
        if len(rows) < len(guided):
            null_logits = torch.where(guided[sample, None], null_logits, logits)
        return Prediction(logits, null_logits, given)

    def _first(self, numbers: Sequence[int], condition: Tensor, guided: Tensor) -> Prediction:
        """Look up or compute the features of each distinct condition, and share them and their logits out."""
        distinct = dict(zip(numbers, range(len(numbers)), strict=True))  # number -> a row that has it
        given = self._opening([*distinct], condition[[*distinct.values()]])  # (U, N, D)
        null = self._opening([_NULL], self._nulls(1)) if bool(guided.any()) else given[:0]
        logits, null_logits = self._head(given.flatten(0, 1), null.flatten(0, 1))
        order = {number: row for row, number in enumerate(distinct)}
        rows = torch.tensor([order[number] for number in numbers], device=self.device)
        logits = logits.unflatten(0, given.shape[:2])[rows]  # (B, N, K)
        if len(null):
            null_logits = torch.where(guided[:, None, None], null_logits, logits)
        return Prediction(logits.flatten(0, 1), null_logits.flatten(0, 1) if len(null) else None, given[rows])

    def _opening(self, numbers: list[int], condition: Tensor) -> Tensor:
        """The features (U, N, D) of images without a decided token under U distinct conditions."""
        missing = [row for row, number in enumerate(numbers) if number not in self._kept]
        new: dict[int, Tensor] = {}
        if missing:  # rows that are not kept yet
            config = self.nat.config
            masked = torch.full((len(missing), config.num_tokens), config.mask_id, device=self.device)
            features = self.nat.features(masked, condition[missing])
            new = {numbers[row]: each for row, each in zip(missing, features, strict=True)}
            if (len(self._kept) + len(new)) * features[0].nbytes <= _MAX_BYTES:
                self._kept |= new
        return torch.stack([new[number] if number in new else self._kept[number] for number in numbers])

    def _head(self, given: Tensor, null: Tensor) -> tuple[Tensor, Tensor]:
        """Return the float32 logits of rows (M, D) and (M', D) of features, in one product."""
        features = torch.cat([given, null])
        padding = max(0, _FEWEST_ROWS - len(features))
        logits = self.nat.head(F.pad(features, (0, 0, 0, padding))).float()
        return logits[: len(given)], logits[len(given) : len(features)]

    def _nulls(self, number: int) -> Tensor:
        return self._null.expand(number, *self._null.shape[1:])

    def _encode_null(self) -> Tensor:
        """What the NAT reads for the null condition: (1,) its null label, or (1, L, D) states of the empty prompt."""
        if self.nat.config.condition == "class":
            return torch.tensor([self.nat.config.num_classes], device=self.device)
        null = self.conditions.null
        if null is None:
            raise ValueError("a text NAT needs the states of the empty prompt")
        return null[None].to(self.device)

    def _autocast(self) -> torch.amp.autocast_mode.autocast:
        enabled = self.precision != torch.float32
        return torch.amp.autocast(self.device.type, dtype=self.precision, enabled=enabled)
