"""The form that a model is written in: the first whose own reader would read back that very model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.entries import HeadKind
from mass_serve.model_store.format.heads import ID2LABEL
from mass_serve.model_store.format.tensor_files import TensorSpec
from mass_serve.model_store.readers.family import Description, Source, classifier_names
from mass_serve.model_store.writers.form import Form
from mass_serve.model_store.writers.image_forms import IMAGE_FORMS
from mass_serve.model_store.writers.plain_model import PlainModel
from mass_serve.model_store.writers.text_forms import TEXT_FORMS

FORMS = (*IMAGE_FORMS, *TEXT_FORMS)
# Heads that are a file of their own, beside a model that gives the embedding.
_OF_FILES: tuple[HeadKind, ...] = ("cosine", "linear")
_DTYPE = torch.float32


@dataclass(frozen=True)
class WrittenForm:
    """One form of one model: all that its folder's config.json and weights are made of."""

    form: Form
    model: PlainModel
    classifies: bool  # the head is the class's own classifier, and no file beside the model
    description: Description  # without weights
    sources: Mapping[str, Source]

    @classmethod
    def of(cls, form: Form, model: PlainModel, folder: Path, *, classifies: bool) -> WrittenForm | None:
        """Returns the model in that form; None where it does not fit."""
        config = form.config(model, classifies=classifies)
        if config is None:
            return None
        described = Description(
            folder / form.family.config_file,
            config,
            {},
            None,
            each_token=classifies and model.classifies_tokens,
        )
        try:
            written = cls(form, model, classifies, described, form.sources(model.architecture, described))
            return written if written._fits() else None
        except CheckpointError:  # of the reader, for what its files cannot say
            return None

    @property
    def class_name(self) -> str:
        """The class of transformers."""
        return self.form.class_name(self.model, classifies=self.classifies)

    @property
    def embedding(self) -> str | None:
        """What a head of its own file takes, in Python."""
        return self.form.embedding(self.model)

    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        config = {"architectures": [self.class_name], **self.description.config, "dtype": "float32"}
        labels, head = self.model.labels, self.model.head
        if head is not None:
            config[ID2LABEL] = {str(row): label for row, label in enumerate(labels)}
            config["label2id"] = {label: row for row, label in enumerate(labels)}
        if self.classifies and head is not None and not head.each_token:
            several = head.thresholds is not None
            config["problem_type"] = f"{'multi' if several else 'single'}_label_classification"
        return config

    def specs(self) -> dict[str, TensorSpec]:
        """Every tensor of the weights file, by its name there."""
        return {self._key(name): spec for name, spec in self._named().items()} | {
            key: TensorSpec(_DTYPE, tuple(tensor.shape)) for key, tensor in self._unused.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the weights file, in float32, by their names there."""
        further: dict[str, Tensor] = {}
        own: dict[str, Tensor] = {}
        for name, source in self.sources.items():
            undone = source.undone(self.model.parameters[name])
            own |= {key: undone.pop(key) for key in source.keys}
            further |= undone
        # What a parameter takes of a tensor beside its own is in that tensor wherever another is made of it.
        named = further | own | self._head_tensors()
        return {self._key(name): tensor for name, tensor in named.items()} | dict(self._unused)

    def _fits(self) -> bool:
        """Tells whether the family's reader would read back this encoder, and the head that it has."""
        specs, family = self.specs(), self.form.family
        weights = {name: specs[key] for key, name in family.names(specs).items() if name is not None}
        described = replace(self.description, weights=weights)
        found = family.architecture(described)
        needed = {key for source in family.sources(found, described).values() for key in source.needed}
        return self._same_encoder(found) and needed <= weights.keys() and self._takes_head(described)

    def _takes_head(self, described: Description) -> bool:
        """Tells whether the class, or a file beside it, is of the model's head."""
        head = self.model.head
        if head is None:
            return True
        if not self.classifies:
            return head.kind in _OF_FILES and not head.each_token and self.embedding is not None
        hidden = self.form.family.hidden_layer(described)
        return head.kind != "cosine" and head.hidden == (hidden and hidden.spec)

    def _same_encoder(self, found: Architecture) -> bool:
        """Tells whether it is the same encoder; a pooling matters to the class's own classifier alone."""
        own = self.model.architecture
        if self.classifies and not self.model.classifies_tokens:
            return found == own
        same = (found.embedding, found.block, found.depth) == (own.embedding, own.block, own.depth)
        return same and own.parameter_shapes().items() <= found.parameter_shapes().items()

    def _named(self) -> dict[str, TensorSpec]:
        """The tensors of the encoder and of its classifier, by the family's names."""
        needed = {key: shape for source in self.sources.values() for key, shape in source.needed.items()}
        head = {name: tuple(tensor.shape) for name, tensor in self._head_tensors().items()}
        return {name: TensorSpec(_DTYPE, shape) for name, shape in (needed | head).items()}

    def _head_tensors(self) -> dict[str, Tensor]:
        """The tensors of the class's own classifier, by the family's names."""
        if not self.classifies or self.model.head is None:
            return {}
        parts = classifier_names(self.form.family, self.description)
        return {parts[part]: tensor for part, tensor in self.model.head.tensors.items() if part in parts}

    @property
    def _unused(self) -> Mapping[str, Tensor]:
        return self.form.unused(self.model, classifies=self.classifies)

    def _key(self, name: str) -> str:
        return self.form.family.key(name, self.description)


def written_form(model: PlainModel, folder: Path) -> WrittenForm:
    """Returns the first form that a model fits, with its head in the model before beside it.

    `folder` is where it is to be, and holds nothing yet. Raises CheckpointError where it fits none.
    """
    for classifies in (True, False) if model.head is not None else (False,):
        for form in FORMS:
            if (written := WrittenForm.of(form, model, folder, classifies=classifies)) is not None:
                return written
    what = "this encoder" if model.head is None else f"this encoder with a {model.head.kind} head"
    detail = " for each token" if model.classifies_tokens else ""
    raise CheckpointError(
        f"transformers has no class for {what}{detail}"
        f" ({model.architecture.pooling.pooled} pooling), so it cannot be exported"
    )
