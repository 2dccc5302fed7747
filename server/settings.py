"""Every setting of the service: flags, then `MASS_...` variables, then a TOML file, then the defaults below.

This is the only module that reads the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, TypeVar, overload

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from mass_serve.engine.options import EngineOptions
from mass_serve.inputs.images import DEFAULT_FORMATS, ImageFormat, ImageLimits
from mass_serve.inputs.texts import TextLimits
from mass_serve.server.errors import first_problem

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Of counts even a long one takes no memory. Of a stream four times as many inputs are kept: with 100, of 1000
# streams and 20 tasks 32 MB.
HalfLife = Annotated[float, Field(ge=1, le=10_000, allow_inf_nan=False)]
StreamHalfLife = Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

MIB = 1 << 20
VARIABLES = "MASS_"  # what the names of the settings' variables begin with
OF_SERVICES = "MASS_SERVE_"  # and those that Kubernetes sets for a service called mass-serve
SPELT_ALIKE = 0.8  # of two names, by how much of their letters they share in the same order


def _separated(given: object) -> object:
    """Splits text at its commas: what a flag or a variable says of a list."""
    return [part.strip() for part in given.split(",")] if isinstance(given, str) else given


def _in_capitals(given: object) -> object:
    return given.upper() if isinstance(given, str) else given


HostName = Annotated[str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9._:\[\]-]+)$")]
HostNames = Annotated[tuple[HostName, ...] | None, NoDecode, BeforeValidator(_separated)]
# As browsers write them: in small letters, or none would ever be the same.
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[a-z0-9._:\[\]-]+)$")]
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_separated)]
FormatName = Annotated[ImageFormat, BeforeValidator(_in_capitals)]
FormatNames = Annotated[tuple[FormatName, ...], NoDecode, BeforeValidator(_separated)]


# Pairs of settings, of which the first must be at most, or below, the second, and what would happen else.
AT_MOST = (
    ("max_images_per_request", "queue_images", "so large a request would never be admitted, however late"),
    ("max_body_bytes", "max_held_bytes", "a body that large would never be read"),
)
BELOW = (
    ("max_batch_seconds", "hang_timeout", "a long batch would count as hung, which ends the process"),
    ("batch_delay", "request_timeout", "a request would wait for its batch until it is refused with 504"),
)


class SettingsError(Exception):
    """A setting is missing, unknown or out of range; the text is one line that names it."""


class Settings(EngineOptions, BaseSettings):
    """Holds what `mass-serve serve` can be told, beside the engine's own options. Unknown keys are errors."""

    model_config = SettingsConfigDict(env_prefix=VARIABLES, extra="forbid", frozen=True)

    config: Path | None = Field(None, description="a TOML file with any of these settings")
    store: str | None = Field(None, description="store folder or URL; the demo store where not given")
    samples: Path | None = Field(
        None,
        description=(
            "folder of images, or file with a text on each line, that the page offers to try; the demo store"
            " has its own"
        ),
    )

    store_poll_seconds: Seconds = Field(
        10.0, description="seconds between polls of the store for a new revision; 0 polls only when told"
    )
    load_timeout: PositiveSeconds = Field(
        600.0, description="seconds of one load after which it counts as hung: the first ends the process"
    )
    shadow_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "share of the inputs that the store's next revision answers silently, too, to be compared in"
            " metrics; 0 loads none"
        ),
    )
    inference_keys_file: Path | None = Field(
        None, description="file of keys, one a line, of which requests need one; re-read when it changes"
    )
    admin_keys_file: Path | None = Field(
        None, description="file of keys for loading and unloading, which is off without it"
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port for gRPC (extra `grpc`), such as 8001; closed where not given",
    )

    tls_cert: Path | None = Field(
        None, description="PEM file of the certificate and its chain, for https; re-read when it changes"
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key, unencrypted")

    allowed_hosts: HostNames = Field(
        None,
        description=(
            "names that requests may call the server by, with commas between; *.example.com is all below,"
            " * any; by default loopback names and `host`, or any where that is a wildcard address"
        ),
    )

    cors_origins: Origins = Field(
        (),
        description=(
            "origins whose pages may call the server from a browser, with commas between, such as"
            " https://app.example.com; * is any; none by default"
        ),
    )

    num_threads: int | None = Field(None, ge=1, description="torch's CPU threads; torch's choice by default")

    max_batch_images: Count = Field(32, description="images in one batch on the device")
    max_batch_tokens: Count = Field(16_384, description="tokens of texts in one batch on the device")
    max_batch_seconds: PositiveSeconds = Field(
        1.0, description="seconds that a batch should take on the device, which whoever comes meanwhile waits"
    )
    batch_delay: Seconds = Field(0.0, description="seconds to wait for a batch to fill")
    answer_cache_bytes: int = Field(
        0,
        ge=0,
        description="memory for answers to inputs that come again, in bytes; 0 keeps none",
    )
    queue_images: Count = Field(256, description="images that may wait; beyond it requests get 429")
    queue_tokens: Count = Field(
        262_144, description="tokens of texts that may wait; beyond it requests get 429"
    )
    front_ends: Count = Field(
        1, description="processes that speak HTTP and gRPC before the one of the device; 1: that one does"
    )
    decode_workers: Count = Field(
        default_factory=lambda: min(8, os.cpu_count() or 1),
        description="processes that decode images, or make tokens of what a thread does not",
    )

    max_body_bytes: Count = Field(32 * MIB, description="largest request body, in bytes")
    max_held_bytes: Count = Field(512 * MIB, description="bytes of all bodies at once; beyond it 429")
    # Pillow itself refuses larger images.
    max_pixels: int = Field(50_000_000, ge=1, le=178_956_970, description="largest image, in pixels")
    image_formats: FormatNames = Field(
        DEFAULT_FORMATS, min_length=1, description="formats of images that are read; TIFF can be added"
    )
    max_text_characters: Count = Field(200_000, description="characters of all texts in one request")
    max_images_per_request: Count = Field(
        64, description="images, or texts, in one request; where each task answers, answers in one request"
    )
    max_top_k: Count = Field(1000, description="largest top_k that a caller may ask for")

    max_streams: int = Field(
        1000, ge=0, description="streams whose evidence is remembered; 0 refuses requests that name one"
    )
    stream_half_life: StreamHalfLife = Field(
        8.0, description="inputs of a stream after which an earlier one's evidence counts half"
    )
    priors_half_life: HalfLife | None = Field(
        None,
        description=(
            "inputs after which an earlier one counts half in priors that are learned from all traffic; by"
            " default none are learned"
        ),
    )

    request_timeout: PositiveSeconds = Field(30.0, description="seconds until a request is answered with 504")
    max_connections: Count = Field(
        2000, description="open connections; beyond it one of the address that has most is closed"
    )
    client_timeout: PositiveSeconds = Field(
        20.0, description="seconds a client may take to send its headers, a slow part of its body, or to read"
    )
    idle_timeout: PositiveSeconds = Field(
        75.0, description="seconds that a connection may stay open between requests"
    )
    hang_timeout: PositiveSeconds = Field(
        60.0, description="seconds of one batch after which the device counts as hung and the process ends"
    )
    drain_seconds: Seconds = Field(5.0, description="seconds of serving on after SIGTERM, before draining")

    max_task_labels: Count = Field(
        100, description="tasks that metrics name, the store's first; all others are counted as `(others)`"
    )
    tracing: bool = Field(
        False, description="send OpenTelemetry traces (extra `tracing`, configured by OTEL_... variables)"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error"
    )
    log_format: Literal["json", "console"] = Field("console", description="json or console")

    @property
    def engine_options(self) -> EngineOptions:
        """The part that an engine takes."""
        return EngineOptions(**{name: getattr(self, name) for name in EngineOptions.model_fields})

    @property
    def max_grpc_connections(self) -> int:
        """Returns how many connections gRPC may have beside HTTP's; each carries many calls."""
        return 0 if self.grpc_port is None else max(1, self.max_connections // 4)

    @property
    def image_limits(self) -> ImageLimits:
        """Returns what an image may be."""
        return ImageLimits(self.max_pixels, self.image_formats)

    @property
    def text_limits(self) -> TextLimits:
        """Returns what the texts of a request may be."""
        return TextLimits(self.max_text_characters)

    @model_validator(mode="after")
    def _no_setting_contradicts_another(self) -> Settings:
        for lesser, greater, why in AT_MOST:
            if getattr(self, lesser) > getattr(self, greater):
                raise ValueError(self._contradiction(lesser, "must not exceed", greater, why))
        for lesser, greater, why in BELOW:
            if getattr(self, lesser) >= getattr(self, greater):
                raise ValueError(self._contradiction(lesser, "must be less than", greater, why))
        return self

    def _contradiction(self, one: str, must: str, other: str, why: str) -> str:
        return f"{one} ({getattr(self, one):.12g}) {must} {other} ({getattr(self, other):.12g}): {why}"

    @model_validator(mode="after")
    def _transports_have_ports_of_their_own(self) -> Settings:
        if self.grpc_port and self.grpc_port == self.port:
            raise ValueError(f"port and grpc_port are both {self.port}; give gRPC another one")
        return self

    @model_validator(mode="after")
    def _a_certificate_has_a_key(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both, or none for plain HTTP")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not read: one file is enough
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the environment, and that over the file, whose path comes from either."""
        path = {**env_settings(), **init_settings()}.get("config")
        if path is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(path))


AnySettings = TypeVar("AnySettings", bound=Settings)


@overload
def load_settings(flags: Mapping[str, object]) -> Settings: ...
@overload
def load_settings(flags: Mapping[str, object], kind: type[AnySettings]) -> AnySettings: ...
def load_settings(flags: Mapping[str, object], kind: type[Settings] = Settings) -> Settings:
    """Returns the settings in force, where a flag of None was not given. Raises SettingsError."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = kind(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(first_problem(error.errors(include_input=False, include_url=False))) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"cannot read the configuration file: {error}") from error
    if settings.config is not None and not settings.config.is_file():
        raise SettingsError(f"the configuration file {settings.config} does not exist")
    return settings


def passed_over(kind: type[Settings] = Settings) -> Iterator[str]:
    """Yields a line for each `MASS_...` variable of this process that is no setting of that kind.

    Such variables are no errors: a platform may set some of its own, as Kubernetes does for a service by the
    name of mass-serve (`MASS_SERVE_PORT`), of which nothing is said here.
    """
    known = [f"{VARIABLES}{name}".upper() for name in kind.model_fields]
    for name in sorted(os.environ):
        if not name.upper().startswith(VARIABLES) or name.upper() in known:
            continue
        if not name.upper().startswith(OF_SERVICES):
            meant = "".join(
                f"; is {one} meant?" for one in get_close_matches(name.upper(), known, 1, SPELT_ALIKE)
            )
            yield f"the variable {name} is no setting and is passed over{meant}"
