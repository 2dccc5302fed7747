"""What `mass-serve ray serve` can be told: all that `mass-serve serve` can, and how many replicas to have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from mass_serve.server.settings import Count, Settings, load_settings

# What would hold for one replica of several, or not at all, and what to do instead.
ELSEWHERE = {
    "admin_keys_file": (
        "loading and unloading would reach one replica of several; change the store, which all of them poll"
    ),
    "front_ends": "each replica is one; raise min_replicas instead",
    "grpc_port": "Ray's proxy takes gRPC by its own schema alone; use HTTP",
}


class RaySettings(Settings):
    """Holds the settings of every replica, and how many of them there are."""

    min_replicas: Count = Field(1, description="replicas that there always are")
    max_replicas: Count = Field(4, description="replicas at most; as many as there is load for")
    target_ongoing_requests: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        16.0, description="requests under way or waiting in a replica, on average, above which one is added"
    )

    @model_validator(mode="after")
    def _holds_on_a_cluster(self) -> RaySettings:
        for name, why in ELSEWHERE.items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} cannot be used on Ray: {why}")
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas ({self.min_replicas}) must not exceed max_replicas ({self.max_replicas})"
            )
        return self


def load_ray_settings(flags: Mapping[str, object]) -> RaySettings:
    """Returns the settings in force, where a flag of None was not given. Raises SettingsError."""
    return load_settings(flags, RaySettings)
