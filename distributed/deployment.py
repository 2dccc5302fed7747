"""The server as a Ray Serve application: how many replicas, what each may use, and when one is added.

    serve.run(application(settings), name="mass-serve")

For `serve deploy` and KubeRay's RayService: `import_path: mass_serve.distributed.deployment:from_arguments`.
"""

from __future__ import annotations

import math
from typing import Any

import ray
import structlog
from ray import serve
from ray.serve.config import AutoscalingConfig, DeploymentActorConfig

from mass_serve.distributed.board import NAME, Board
from mass_serve.distributed.replica import replica_app
from mass_serve.distributed.settings import RaySettings, load_ray_settings
from mass_serve.distributed.share import resources
from mass_serve.server.errors import WorkerDiedError
from mass_serve.server.serving.service import Service
from mass_serve.server.settings import passed_over

CHECK_PERIOD_SECONDS = 2.0
# Beyond the server's own drain, for what Ray does itself.
SPARE_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Replica:
    """Answers what Ray asks a replica, beside its requests."""

    def check_health(self) -> None:
        """Raises WorkerDiedError once only another process can help; Ray starts one then."""
        service: Service = self.app.state.service  # type: ignore[attr-defined] # of Ray's ingress
        if not service.alive:
            raise WorkerDiedError("The replica cannot answer any more.")


def application(settings: RaySettings) -> serve.Application:
    """Returns what `serve.run` takes, and warns of variables of this process that are no settings."""
    for line in passed_over(RaySettings):
        log.warning(line)

    def build() -> Any:  # is called in each replica
        return replica_app(settings)

    deployment: Any = serve.deployment(
        serve.ingress(build)(Replica),
        name="mass-serve",
        ray_actor_options=resources(settings),
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.min_replicas,
            initial_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            target_ongoing_requests=settings.target_ongoing_requests,
        ),
        # The server itself refuses what is too much, and says so; Ray's proxy would let it wait for ever.
        max_ongoing_requests=settings.max_connections,
        health_check_period_s=CHECK_PERIOD_SECONDS,
        graceful_shutdown_timeout_s=math.ceil(settings.request_timeout + SPARE_SECONDS),
        deployment_actors=[
            DeploymentActorConfig(name=NAME, actor_class=ray.remote(Board), actor_options={"num_cpus": 0})
        ],
    )
    bound: serve.Application = deployment.bind()
    return bound


def from_arguments(arguments: dict[str, str]) -> serve.Application:
    """Returns the application of the settings in a configuration file of Ray Serve. Raises SettingsError."""
    return application(load_ray_settings(arguments))
