"""The runtime and the service for KServe fit each other, the server and the manifests of Kubernetes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from fastapi.routing import APIRoute

from mass_serve.server.operation import health_routes
from mass_serve.server.protocols.open_inference import routes as open_inference
from mass_serve.server.settings import Settings
from tests.docker.kustomize import rendered
from tests.docker.material import DOCKER, read_yaml

RUNTIME = read_yaml(DOCKER / "k8s" / "kserve" / "runtime.yaml")
SERVICE = read_yaml(DOCKER / "k8s" / "kserve" / "inference-service.yaml")
(CONTAINER,) = RUNTIME["spec"]["containers"]
PREDICTOR = SERVICE["spec"]["predictor"]
VARIABLES = {variable["name"]: variable.get("value") for variable in CONTAINER["env"]}


def pod() -> dict[str, Any]:
    (deployment,) = [one for one in rendered(DOCKER / "k8s") if one["kind"] == "Deployment"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_the_service_is_of_a_format_that_the_runtime_has() -> None:
    (known,) = RUNTIME["spec"]["supportedModelFormats"]
    assert PREDICTOR["model"]["modelFormat"]["name"] == known["name"]
    assert known["autoSelect"] is True
    assert PREDICTOR["model"]["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]


def test_the_variables_are_settings_and_name_what_kserve_mounts() -> None:
    assert VARIABLES.keys() <= {f"MASS_{name.upper()}" for name in Settings.model_fields}
    assert VARIABLES["MASS_STORE"] == "/mnt/models"
    (port,) = CONTAINER["ports"]
    assert VARIABLES["MASS_PORT"] == str(port["containerPort"])


def test_the_probes_ask_what_the_server_answers() -> None:
    paths = {
        route.path
        for module in (health_routes, open_inference)
        for route in module.router.routes
        if isinstance(route, APIRoute)
    }
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = CONTAINER[name]["httpGet"]
        assert asked["path"] in paths
        assert str(asked["port"]) == VARIABLES["MASS_PORT"]


def test_it_is_confined_and_given_time_as_in_the_deployment() -> None:
    (other,) = pod()["containers"]
    assert other["securityContext"].items() <= CONTAINER["securityContext"].items()
    assert CONTAINER["securityContext"]["runAsUser"] == pod()["securityContext"]["runAsUser"]
    assert CONTAINER["resources"] == other["resources"]
    assert PREDICTOR["terminationGracePeriodSeconds"] == pod()["terminationGracePeriodSeconds"]
    theirs = {variable["name"]: variable.get("value") for variable in other["env"]}
    for name in ("MASS_REQUEST_TIMEOUT", "MASS_DRAIN_SECONDS"):
        assert VARIABLES[name] == theirs[name]


@pytest.mark.optional("kserve")
@pytest.mark.parametrize(
    ("described", "model"), [(RUNTIME, "V1alpha1ServingRuntime"), (SERVICE, "V1beta1InferenceService")]
)
def test_kserve_knows_every_field(described: dict[str, Any], model: str) -> None:
    assert _unknown(described, model, described["kind"]) == []


@pytest.mark.optional("kserve")
def test_a_field_that_is_misspelt_is_found() -> None:
    misspelt = {**RUNTIME, "spec": {**RUNTIME["spec"], "protocolVersion": ["v2"]}}
    assert _unknown(misspelt, "V1alpha1ServingRuntime", "") == [".spec.protocolVersion"]


def _unknown(described: dict[str, Any], model: str, where: str) -> list[str]:
    """Asked in a process of its own: KServe compiles the same messages of gRPC as the server."""
    arguments = [sys.executable, "-m", "tests.docker.kserve_fields", model, where]
    done = subprocess.run(arguments, input=json.dumps(described), capture_output=True, text=True, check=True)
    return done.stdout.split()
