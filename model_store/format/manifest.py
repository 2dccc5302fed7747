"""manifest.json: everything a store says about itself, in format version 1 or 2.

The manifest is the store: a file that it does not name is not part of it, and it is always written last.

`Manifest` is what the program works with, and how version 1 writes it; `ManifestOf2` is how version 2 does.
The lowest version that says everything is the one that is written (`lowest_version`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from operator import not_
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from mass_serve.backbone.architecture import PatchEmbedding
from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.architecture_v1 import StoredArchitecture, is_flat
from mass_serve.model_store.format.architecture_v2 import NestedStoredArchitecture
from mass_serve.model_store.format.block_format_names import BlockDtype, BlockFormat
from mass_serve.model_store.format.entries import (
    CalibrationEntry,
    RouterSpec,
    StoredMethodName,
    TaskEntry,
    is_none,
)
from mass_serve.model_store.format.factoring import Factoring, PatchEmbeddingForm
from mass_serve.model_store.format.field_types import (
    RelativePath,
    Revision,
    Sha256,
    Share,
    StrictModel,
    TaskName,
    first_problem,
    spelled_otherwise,
)
from mass_serve.model_store.format.file_names import (
    MANIFEST_FILE,
    MERGED_BASE_PREFIX,
    PRETRAINED_FILE,
    TOKENIZER_FILE,
)
from mass_serve.model_store.format.groups import Groups, check_groups
from mass_serve.model_store.format.origin import Origin
from mass_serve.model_store.format.preprocessing import AnyPreprocessing, Preprocessing, TextPreprocessing
from mass_serve.model_store.format.rank_rules import RatioBudget, RatioRule, StoredRankRule
from mass_serve.model_store.format.strict_json import parse_json

FORMAT_VERSION = 2  # the newest

MergedBaseForm = Literal["stored", "rebuilt"]


class Manifest(StrictModel):
    """The content of manifest.json."""

    format_version: Literal[1, 2] = 1  # that it was read from
    store_revision: Revision  # new with every write
    backbone: StoredArchitecture
    preprocessing: AnyPreprocessing
    router: RouterSpec
    # The rule by which tasks get their ranks: one of these is there. Format version 1 has the first alone.
    compression_ratio: Share | None = Field(default=None, exclude_if=is_none)
    # Of that ratio, where it is `ratio_budget / T`. Format version 1 has no such key.
    ratio_budget: RatioBudget | None = Field(default=None, exclude_if=is_none)
    rank_rule: StoredRankRule | None = Field(default=None, exclude_if=is_none)
    patch_embedding: PatchEmbeddingForm
    block_dtype: BlockDtype  # of the blocks of every task whose entry has no `block_format`
    # That of tasks that are added, where it is not `block_dtype`. Format version 1 has no such key.
    block_format: BlockFormat | None = Field(default=None, exclude_if=is_none)
    factored_parameters: tuple[str, ...]
    merged_base: MergedBaseForm
    # By which it is merged, and stored; none: by TSV-M. Format version 1 has no such key.
    merged_base_method: StoredMethodName | None = Field(default=None, exclude_if=is_none)
    files: dict[RelativePath, Sha256]  # of pretrained; tokenizer, merged base, calibration where there are
    tasks: Annotated[tuple[TaskEntry, ...], Field(min_length=1)]
    calibration: CalibrationEntry | None = None
    # Earlier revisions, oldest first; of removed tasks too.
    history: dict[TaskName, tuple[TaskEntry, ...]] = Field(default_factory=dict)
    # Of the pretrained model, where it was fetched by its name. Format version 1 has no such key.
    pretrained_origin: Origin | None = Field(default=None, exclude_if=is_none)
    # The tasks that a group's name stands for in requests. Format version 1 has no such key.
    groups: Groups = Field(default_factory=dict, exclude_if=not_)

    @model_validator(mode="after")
    def _parts_fit(self) -> Manifest:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("tasks: two tasks have the same name")
        if clash := spelled_otherwise(entry.name for entry in self.all_entries()):
            raise ValueError(f"tasks: {clash[0]} and {clash[1]} differ in their case alone")
        if self.router.layer >= self.backbone.depth:
            raise ValueError(
                f"router.layer: {self.router.layer} does not exist, the encoder's blocks are "
                f"0..{self.backbone.depth - 1}"
            )
        for key in ("token", "late_token"):
            if getattr(self.router, key) not in (None, *self.backbone.tokens):
                raise ValueError(f"router.{key}: must be {self.backbone.tokens[0]}, there is no class token")
        self._preprocessing_fits()
        return self

    def _preprocessing_fits(self) -> None:
        embedding, preprocessing = self.backbone.embedding, self.preprocessing
        if isinstance(embedding, PatchEmbedding):
            if not isinstance(preprocessing, Preprocessing):
                raise ValueError("preprocessing: is of texts, and the backbone reads images")
            if preprocessing.crop != embedding.image_size:
                raise ValueError("preprocessing.crop: must be the backbone's image_size")
        else:
            if not isinstance(preprocessing, TextPreprocessing):
                raise ValueError("preprocessing: is of images, and the backbone reads texts")
            if preprocessing.max_tokens > embedding.max_tokens:
                raise ValueError("preprocessing.max_tokens: must be at most the backbone's max_tokens")
            if self.patch_embedding != "factored":
                raise ValueError("patch_embedding: must be factored, the backbone has no patches to average")

    @model_validator(mode="after")
    def _tokens_are_a_texts(self) -> Manifest:
        for task in self.all_entries():
            if task.head.each_token and not self.backbone.reads_text:
                raise ValueError(
                    f"tasks: {task.name} has a head for each token, and the backbone reads images"
                )
        return self

    @model_validator(mode="after")
    def _factoring_follows_from_the_sizes(self) -> Manifest:
        if self.compression_ratio is None and self.rank_rule is None:
            raise ValueError("compression_ratio: Field required, or a rank_rule in its place")
        if self.compression_ratio is not None and self.rank_rule is not None:
            raise ValueError("rank_rule: must not be there beside a compression_ratio")
        if self.compression_ratio is None and self.ratio_budget is not None:
            raise ValueError("ratio_budget: must not be there without a compression_ratio")
        factoring = self.factoring
        if self.factored_parameters != tuple(factoring.shapes):
            raise ValueError("factored_parameters: must be the matrices of the backbone, in forward order")
        for task in self.all_entries():
            try:
                factoring.check(task.rank, task.ranks)
            except ValueError as error:
                raise ValueError(f"tasks: {task.name} {error}") from error
        return self

    @model_validator(mode="after")
    def _files_are_known(self) -> Manifest:
        merged_base = [path for path in self.files if path.startswith(MERGED_BASE_PREFIX) and "/" not in path]
        if len(merged_base) != (self.merged_base == "stored"):
            raise ValueError(
                f"files: there must be one {MERGED_BASE_PREFIX}*.safetensors where merged_base is stored, "
                "and only there"
            )
        if self.merged_base_method is not None and not merged_base and self.routed_tasks:
            raise ValueError("merged_base: must be stored where it has a merged_base_method")
        if merged_base and not self.routed_tasks:
            raise ValueError("merged_base: must be rebuilt where no task is routed: it is of those")
        known = {PRETRAINED_FILE, *merged_base, *([self.calibration.file] if self.calibration else [])}
        if isinstance(self.preprocessing, TextPreprocessing):
            known.add(TOKENIZER_FILE)
        if set(self.files) != known:
            raise ValueError(f"files: must be {', '.join(sorted(known))}")
        return self

    @model_validator(mode="after")
    def _combinations_are_of_tasks(self) -> Manifest:
        with_blocks = {task.name for task in self.tasks if task.combination is None}
        for task in self.tasks:
            if task.combination is None:
                continue
            if unknown := [name for name in task.combination.tasks if name not in with_blocks]:
                raise ValueError(
                    f"tasks: {task.name} is a combination of {unknown[0]}, which has no blocks here"
                )
        return self

    @model_validator(mode="after")
    def _history_is_by_name(self) -> Manifest:
        for name, entries in self.history.items():
            if not entries or any(entry.name != name for entry in entries):
                raise ValueError(f"history.{name}: must list earlier revisions of {name}")
        return self

    @model_validator(mode="after")
    def _groups_are_of_tasks(self) -> Manifest:
        check_groups(self.groups, {entry.name for entry in self.all_entries()})
        return self

    @model_validator(mode="after")
    def _revisions_are_used_once(self) -> Manifest:
        """Two entries of one revision would have the same files, and might have other hashes of them."""
        seen = set()
        for entry in self.all_entries():
            if (entry.name, entry.revision) in seen:
                raise ValueError(f"history.{entry.name}: has the revision {entry.revision} twice")
            seen.add((entry.name, entry.revision))
        return self

    @property
    def factoring(self) -> Factoring:
        """What the store factors, and the rule by which tasks get their ranks."""
        ratio, budget = self.compression_ratio, self.ratio_budget
        rule = self.rank_rule or RatioRule.model_construct(compression_ratio=ratio, ratio_budget=budget)
        return Factoring(self.backbone, self.patch_embedding, rule)

    @property
    def merged_base_file(self) -> str | None:
        """The path of the merged base; None where it is rebuilt at load."""
        return next((path for path in self.files if path.startswith(MERGED_BASE_PREFIX)), None)

    @property
    def routed_tasks(self) -> tuple[TaskEntry, ...]:
        """The tasks that an input can be routed to, in their order: those that give it one class as a whole.

        Whether a text is of a task that classifies its tokens says nothing about which other task it is of,
        so those have no part in the merged base, in a calibration and in the router.
        """
        return tuple(task for task in self.tasks if not task.head.each_token)

    @property
    def token_tasks(self) -> tuple[str, ...]:
        """The names of the other tasks, in their order: those that classify the tokens of texts."""
        return tuple(task.name for task in self.tasks if task.head.each_token)

    def calibrated_tasks(self, names: Collection[str]) -> tuple[int, ...] | None:
        """Returns the place of each named task in the calibration; None where the calibration does not fit.

        Of the named tasks those count that are routed. Their revisions must be those that it was made with,
        and where the first pass runs on the merged base, which all of them have a part in, there must be no
        others.
        """
        if self.calibration is None:
            return None
        of, wanted = self.calibration.tasks, frozenset(names)
        served = [task for task in self.routed_tasks if task.name in wanted]
        if any(of.get(task.name) != task.revision for task in served):
            return None
        if self.router.first_pass == "merged_base" and len(served) != len(of):
            return None
        places = {name: place for place, name in enumerate(of)}
        return tuple(places[task.name] for task in served)

    def find_task(self, name: str) -> TaskEntry | None:
        """Returns the current revision of a task, or None for an unknown task."""
        return next((task for task in self.tasks if task.name == name), None)

    def all_files(self) -> dict[str, str]:
        """Returns every file of the store but the manifest, with its SHA-256; earlier revisions included."""
        found = dict(self.files)
        for entry in self.all_entries():
            found |= entry.files
        return found

    def all_entries(self) -> Iterator[TaskEntry]:
        """Yields every revision of every task: the current ones, then the earlier."""
        yield from self.tasks
        for earlier in self.history.values():
            yield from earlier

    def to_bytes(self) -> bytes:
        """Writes the content of manifest.json in the lowest version: indented, with a final newline."""
        version = lowest_version(self)
        form = FORMS[version].model_construct(**{**dict(self), "format_version": version})
        return (form.model_dump_json(indent=2) + "\n").encode()


def encoder_of(manifest: Manifest) -> dict[str, object]:
    """Returns a manifest's `backbone` and `preprocessing` as version 2 writes them, whichever it is of."""
    form = ManifestOf2.model_construct(**dict(manifest))
    return form.model_dump(mode="json", include={"backbone", "preprocessing"})


class ManifestOf2(Manifest):
    """The content of manifest.json in format version 2: the backbone is an object for each of its parts."""

    backbone: NestedStoredArchitecture


FORMS: dict[int, type[Manifest]] = {1: Manifest, 2: ManifestOf2}


def lowest_version(manifest: Manifest) -> int:
    """Returns the lowest format version that says everything that a manifest says."""
    of_version_2 = (
        not is_flat(manifest.backbone),
        manifest.preprocessing.needs_version_2,
        any(_is_measured(task) for task in manifest.all_entries()),
        manifest.pretrained_origin is not None,
        bool(manifest.groups),
        manifest.merged_base_method is not None,
        manifest.router.late_token is not None or manifest.router.late_mlp_share < 1,
        manifest.rank_rule is not None or manifest.ratio_budget is not None,
        any(task.ranks is not None or task.adapter for task in manifest.all_entries()),
        manifest.block_format is not None,
        any(entry.block_format is not None for entry in manifest.all_entries()),
        any(entry.head.hidden is not None or entry.head.each_token for entry in manifest.all_entries()),
        any(entry.head.is_multi_label for entry in manifest.all_entries()),
        any(entry.combination is not None for entry in manifest.all_entries()),
        any(entry.origins or entry.name != entry.name.lower() for entry in manifest.all_entries()),
    )
    return 2 if any(of_version_2) else 1


def _is_measured(task: TaskEntry) -> bool:
    measured = task.distance, task.energy_kept, task.exit_price, task.drawn_energies
    return any(one is not None for one in measured)


def parse_manifest(content: bytes) -> Manifest:
    """Reads the manifest from the bytes of manifest.json.

    Raises ManifestError for malformed JSON, keys that are unknown, missing or there twice, values out of
    range, and for a format version that this program does not know.
    """
    try:
        raw = parse_json(content)
    except ValueError as error:
        raise ManifestError(f"{MANIFEST_FILE} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ManifestError(f"{MANIFEST_FILE} must hold a JSON object")
    version = raw.get("format_version", 1)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ManifestError(
            f"this store has format version {version}, this program reads up to {FORMAT_VERSION}: "
            "update mass-serve to open it"
        )
    form = FORMS.get(version, Manifest) if type(version) is int else Manifest
    try:
        manifest = form.model_validate_json(content)
    except ValidationError as error:
        raise ManifestError(
            f"{MANIFEST_FILE} is not valid: {first_problem(error)}{_advice(error)}"
        ) from error
    if (needed := lowest_version(manifest)) > manifest.format_version:
        raise ManifestError(
            f"{MANIFEST_FILE} is not valid: it says what format version {needed} has come with, and its "
            f"format_version is {manifest.format_version}"
        )
    return manifest


def _advice(error: ValidationError) -> str:
    """What to do about the first problem, where it is a key: version 2 grows by keys until it is released."""
    is_unknown_key = error.errors(include_url=False)[0]["type"] == "extra_forbidden"
    return "; if a newer mass-serve wrote the store, update this one to open it" if is_unknown_key else ""
