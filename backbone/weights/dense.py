"""One set of weights for every sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mass_serve import kernels
from mass_serve.backbone.architecture import bias_of, weight_of
from mass_serve.backbone.parameters import Parameters, forms_of, table_of
from mass_serve.backbone.weights.protocol import ALL_ROWS, token_rows
from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.weights import rows_of


class DenseWeights:
    """`EncoderWeights` of the pretrained encoder, the merged base, or any single model."""

    def __init__(self, parameters: Parameters) -> None:
        """`parameters` holds, by canonical name, every parameter that a pass reads."""
        self.parameters = parameters
        self._forms = forms_of(parameters)

    @property
    def divisible(self) -> bool:
        return True

    def of_samples(self, samples: slice) -> DenseWeights:  # noqa: ARG002 - all samples share them
        return self

    def of_tokens(self, offsets: Sequence[int]) -> DenseWeights:  # noqa: ARG002 - as above
        return self

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        weight, bias = self._forms[weight_of(name)], self.parameters.get(bias_of(name))
        bias = None if bias is None else bias[output_rows]
        y = kernels.linear(x.flatten(0, 1), weight[output_rows], bias, activation, token_rows(skip))
        return y.view(x.shape[0], x.shape[1], -1)

    def layer_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        weight, bias = self.parameters[weight_of(name)], self.parameters[bias_of(name)]
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    def add_positions(self, class_token: str | None, positions: str, patches: Tensor) -> Tensor:
        first = None if class_token is None else [self.parameters[class_token]]
        return kernels.segmented_positions(patches, first, [self.parameters[positions]], [0, len(patches)])

    def words(self, name: str, ids: Tensor) -> Tensor:
        return rows_of(table_of(self._forms, name), ids).unsqueeze(1)

    def add_rows(self, parameter: str, x: Tensor, places: Tensor) -> Tensor:
        table = self.parameters[parameter]
        return kernels.segmented_added_rows(x[:, 0], [table], places, [0, len(x)]).unsqueeze(1)

    @property
    def attention(self) -> None:
        return None
