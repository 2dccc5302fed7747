"""The entries of a manifest: its router, its tasks with their heads, its calibration."""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mass_serve.backbone.architecture import Token
from mass_serve.kernels.activation_names import HeadActivation
from mass_serve.model_store.format.architecture_v1 import Epsilon
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.field_types import (
    LARGEST_SIZE,
    Label,
    RelativePath,
    Revision,
    Sha256,
    StrictModel,
    TaskName,
)
from mass_serve.model_store.format.file_names import CALIBRATION_PREFIX, task_folder
from mass_serve.model_store.format.origin import Origin

FirstPass = Literal["merged_base", "pretrained"]
HeadChoice = Literal["max", "mean", "router"]
HeadKind = Literal["cosine", "linear", "stack"]
# Of a label's probability.
Threshold = Annotated[float, Field(ge=0, le=1)]
# A mean of logarithms of shares of energy, or of their ratios.
LogShare = Annotated[float, Field(ge=-1e3, le=1e3)]
Rank = Annotated[int, Field(ge=0, le=LARGEST_SIZE)]
# Which modes there are is the router's affair (`router.ModeName`); a store only has the name of one.
StoredModeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
# And which merging methods there are that of `merging.methods`.
StoredMethodName = StoredModeName
# The mode of a store whose manifest names none: the projection-residual router of arXiv:2504.05342.
FIRST_MODE = "paper"


def is_none(value: object) -> bool:
    """Tells whether a key is left out of manifest.json: a lower version of the format has no such key."""
    return value is None


class RouterSpec(StrictModel):
    """The router, and what follows from its choice (arXiv:2504.05342; the modes: `router.modes`)."""

    mode: StoredModeName = FIRST_MODE
    layer: Annotated[int, Field(ge=0)]
    token: Token = "class"
    # By which late energies are measured; without it, by the token above. Format version 1 has no such key.
    late_token: Token | None = Field(default=None, exclude_if=is_none)
    # Within these bounds float32 computes coefficients that are finite.
    temperature: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.2
    top_k: Annotated[int, Field(ge=1, le=4096)] = 3
    head_choice: HeadChoice = "max"
    first_pass: FirstPass = "merged_base"
    # Of the patches or words, how many have an MLP of their own behind the first third of a first pass (see
    # `backbone.parts.shared_mlp`). Format version 1 has no such key.
    late_mlp_share: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, exclude_if=(1.0).__eq__)
    unrouted_below: Annotated[float, Field(ge=0, le=1)] = 0.0  # of familiarity; 0: every answer is believed


class HiddenSpec(StrictModel):
    """The hidden layer of a stack: a linear one, its activation and, with an epsilon, a LayerNorm."""

    activation: HeadActivation
    norm_eps: Epsilon | None


class HeadSpec(StrictModel):
    """`cosine`: scaled cosine similarity to class vectors; `linear`: weight and bias.

    `stack`: the same as linear, behind a hidden layer; format version 1 has none.
    """

    kind: HeadKind
    hidden: HiddenSpec | None = Field(default=None, exclude_if=is_none)
    # It takes the last hidden states of every token of a text, and not the embedding: see `routed_tasks`.
    # Format version 1 has no such key.
    each_token: bool = Field(default=False, exclude_if=not_)
    # Of each label, in the head's row order, where an input may have any number of labels: the sigmoid of a
    # logit is the label's probability, and from the threshold on the input has it. None: it has one of them,
    # by softmax. Format version 1 has no such key.
    thresholds: tuple[Threshold, ...] | None = Field(default=None, exclude_if=is_none)

    @model_validator(mode="after")
    def _labels_are_of_whole_inputs(self) -> HeadSpec:
        if self.each_token and self.is_multi_label:
            raise ValueError("thresholds: a head for each token gives one label, and has none")
        return self

    @property
    def is_multi_label(self) -> bool:
        """Whether an input may have any number of the labels, and not one of them."""
        return self.thresholds is not None

    @model_validator(mode="after")
    def _a_stack_has_a_hidden_layer(self) -> HeadSpec:
        if (self.kind == "stack") != (self.hidden is not None):
            raise ValueError("hidden: a head of the kind stack has a hidden layer, and no other has one")
        return self


class DrawnEnergiesSpec(StrictModel):
    """What energies drawn inputs have in a task's subspaces, at each linear (`engine.drawn_energies`)."""

    of: Sha256  # of what they were measured with; where that is another now, they are not used
    shares: tuple[LogShare, ...]
    # Where a task of the store is an adapter.
    profiles: tuple[LogShare, ...] = Field(default=(), exclude_if=().__eq__)

    @model_validator(mode="after")
    def _both_are_of_the_linears(self) -> DrawnEnergiesSpec:
        if self.profiles and len(self.shares) != len(self.profiles):
            raise ValueError("drawn_energies: there must be as many profiles as shares")
        return self


class CombinationSpec(StrictModel):
    """What a created task changes of the encoder: the changes of other tasks, scaled and summed.

    It holds whatever revisions those have: the store keeps out others that are not the same tasks in fewer
    or more singular vectors. None: the encoder is the pretrained one.
    """

    tasks: tuple[TaskName, ...]

    @field_validator("tasks")
    @classmethod
    def _each_once(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tasks)) != len(tasks):
            raise ValueError("a task is there twice")
        return tasks


class TaskEntry(StrictModel):
    """One revision of one task. Its files are never overwritten; a new revision has its own folder."""

    name: TaskName
    revision: Revision
    labels: tuple[Label, ...]  # in the head's row order
    head: HeadSpec
    rank: Rank  # of the width x width matrices, or the largest of `ranks`
    individual_accuracy: Annotated[float, Field(ge=0, le=1)] | None
    # What building measured; format version 1 has no such keys.
    distance: Annotated[float, Field(ge=0, le=1e30)] | None = Field(default=None, exclude_if=is_none)
    energy_kept: Annotated[float, Field(ge=0, le=1)] | None = Field(default=None, exclude_if=is_none)
    # How far second passes that resume end from whole ones, a cosine distance (`engine.exits`).
    exit_price: Annotated[float, Field(ge=0, le=2)] | None = Field(default=None, exclude_if=is_none)
    # Of inputs that are of no task (`engine.drawn_energies`); format version 1 has no such key.
    drawn_energies: DrawnEnergiesSpec | None = Field(default=None, exclude_if=is_none)
    files: dict[RelativePath, Sha256]
    # Of every factored parameter, in forward order, where they are not what the store's rule prescribes.
    # Format version 1 has no such key.
    ranks: dict[str, Rank] | None = Field(default=None, exclude_if=is_none)
    # Its directions are where an adapter began, at random. Format version 1 has no such key.
    adapter: bool = Field(default=False, exclude_if=not_)
    # How its blocks are kept, where not in the store's `block_dtype`. Format version 1 has no such key.
    block_format: BlockFormat | None = Field(default=None, exclude_if=is_none)
    # Of what was fetched by its name: checkpoint, head, labels. Format version 1 has no such key.
    origins: tuple[Origin, ...] = Field(default=(), exclude_if=().__eq__)
    # Of a task that was created of labelled inputs, in place of blocks. Format version 1 has no such key.
    combination: CombinationSpec | None = Field(default=None, exclude_if=is_none)

    @field_validator("labels")
    @classmethod
    def _labels_name_classes(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if not labels or len(set(labels)) != len(labels):
            raise ValueError("labels must be unique, and at least one")
        return labels

    @model_validator(mode="after")
    def _thresholds_are_of_labels(self) -> TaskEntry:
        thresholds = self.head.thresholds
        if thresholds is not None and len(thresholds) != len(self.labels):
            raise ValueError(
                f"head.thresholds: there are {len(thresholds)}, and the task {self.name} has"
                f" {len(self.labels)} labels"
            )
        return self

    @model_validator(mode="after")
    def _files_are_its_own(self) -> TaskEntry:
        expected = {self.head_file} | ({self.changes_file} if self.changes_file else set())
        if set(self.files) != expected:
            raise ValueError(f"the files of task {self.name} must be {', '.join(sorted(expected))}")
        return self

    @property
    def experts_file(self) -> str:
        """The path of the singular blocks and dense deltas within the store."""
        return f"{task_folder(self.name, self.revision)}/experts.safetensors"

    @property
    def has_blocks(self) -> bool:
        """Whether the task has an experts file; one that was created is a combination of others'."""
        return self.combination is None

    @property
    def coefficients_file(self) -> str:
        """The path of a created task's coefficients within the store."""
        return f"{task_folder(self.name, self.revision)}/coefficients.safetensors"

    @property
    def changes_file(self) -> str | None:
        """The path of what the task itself keeps of its change; None where it changes nothing."""
        if self.combination is None:
            return self.experts_file
        return self.coefficients_file if self.combination.tasks else None

    @property
    def head_file(self) -> str:
        """The path of the classification head within the store."""
        return f"{task_folder(self.name, self.revision)}/head.safetensors"


class CalibrationEntry(StrictModel):
    """A calibration by unlabelled images. It holds for these revisions of these tasks."""

    file: RelativePath
    tasks: dict[TaskName, Revision]  # in the order of the tensors
    images: Annotated[int, Field(ge=1, le=(1 << 53) - 1)]  # as JSON numbers are exact everywhere

    @field_validator("file")
    @classmethod
    def _file_is_its_own(cls, file: str) -> str:
        if not file.startswith(CALIBRATION_PREFIX) or "/" in file:
            raise ValueError(f"must be {CALIBRATION_PREFIX}*.safetensors")
        return file
