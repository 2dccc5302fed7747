"""The Kubernetes manifests fit the server, the image, and each other."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from fastapi.routing import APIRoute

from mass_serve.server.operation import health_routes as health
from mass_serve.server.operation import metrics_routes as metrics
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.settings import Settings, load_settings
from tests.docker.material import DOCKER, environment, last, read_yaml

FOLDER = DOCKER / "k8s" / "base"
KUSTOMIZATION = read_yaml(FOLDER / "kustomization.yaml")
OBJECTS = {
    read_yaml(path)["kind"]: read_yaml(path)
    for path in FOLDER.glob("*.yaml")
    if path.name != "kustomization.yaml"
}
DEPLOYMENT = OBJECTS["Deployment"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
LABELS = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
PATHS = {
    route.path
    for module in (health, metrics)
    for route in module.router.routes
    if isinstance(route, APIRoute)
}


def _settings(patch: pytest.MonkeyPatch) -> Settings:
    """The settings that a server in the pod has. Raises SettingsError for a variable's bad value."""
    limits = CONTAINER["resources"]["limits"]
    given = {name: value for name, value in environment("cpu").items() if name.startswith("MASS_")}
    for variable in CONTAINER["env"]:
        reference = variable.get("valueFrom", {}).get("resourceFieldRef")
        given[variable["name"]] = (
            limits[reference["resource"].split(".")[1]] if reference else variable["value"]
        )
    assert given.keys() <= {f"MASS_{name.upper()}" for name in Settings.model_fields}
    for name in [name for name in os.environ if name.startswith("MASS_")]:
        patch.delenv(name)
    for name, value in given.items():
        patch.setenv(name, value)
    return load_settings({})


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", selector)
    return bool(wanted) and wanted.items() <= labels.items()


def test_the_pods_variables_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch)
    assert settings.num_threads == int(CONTAINER["resources"]["limits"]["cpu"])
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"http": settings.port, "grpc": settings.grpc_port}


def test_the_pod_is_given_time_to_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch)
    assert POD["terminationGracePeriodSeconds"] > settings.drain_seconds + 2 * settings.request_timeout + 1


def test_balancers_learn_of_the_drain_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = CONTAINER["readinessProbe"]
    assert _settings(monkeypatch).drain_seconds > probe["periodSeconds"] * probe["failureThreshold"]


def test_the_probes_ask_what_the_server_answers() -> None:
    ports = {port["name"] for port in CONTAINER["ports"]}
    asked = {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {get["path"] for get in asked.values()} <= PATHS
    assert {get["port"] for get in asked.values()} <= ports
    assert asked["livenessProbe"]["path"] == "/livez"
    assert asked["readinessProbe"]["path"] == asked["startupProbe"]["path"] == "/readyz"


def test_the_pod_is_confined_as_the_proof_is() -> None:
    user, group = (int(part) for part in last("cpu", "USER").split(":"))
    pod, container = POD["securityContext"], CONTAINER["securityContext"]
    assert (pod["runAsUser"], pod["runAsGroup"], pod["runAsNonRoot"]) == (user, group, True)
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False


def test_the_key_files_can_be_read_by_the_servers_group() -> None:
    (keys,) = [volume for volume in POD["volumes"] if "secret" in volume]
    assert keys["secret"]["defaultMode"] & 0o040
    assert not keys["secret"]["defaultMode"] & 0o007
    assert POD["securityContext"]["fsGroup"] == POD["securityContext"]["runAsGroup"]


def test_everything_is_mounted_and_only_temporary_files_are_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in POD["volumes"]}
    assert {name for name, mount in mounts.items() if not mount.get("readOnly")} == {"tmp"}
    settings = _settings(monkeypatch)
    assert settings.store == mounts["store"]["mountPath"] == last("cpu", "VOLUME")
    assert settings.inference_keys_file is not None
    assert str(settings.inference_keys_file.parent) == mounts["keys"]["mountPath"]


def test_the_claim_is_the_one_that_is_mounted() -> None:
    (store,) = [volume for volume in POD["volumes"] if "persistentVolumeClaim" in volume]
    assert store["persistentVolumeClaim"]["claimName"] == OBJECTS["PersistentVolumeClaim"]["metadata"]["name"]
    assert store["persistentVolumeClaim"]["readOnly"] is True


def test_the_selectors_find_the_pods() -> None:
    assert _selects(DEPLOYMENT["spec"]["selector"], LABELS)
    assert _selects(OBJECTS["Service"]["spec"]["selector"], LABELS)
    assert _selects(OBJECTS["PodDisruptionBudget"]["spec"]["selector"], LABELS)
    assert _selects(POD["topologySpreadConstraints"][0]["labelSelector"], LABELS)
    assert _selects(OBJECTS["ServiceMonitor"]["spec"]["selector"], OBJECTS["Service"]["metadata"]["labels"])


def test_the_ports_are_named_alike() -> None:
    ports = OBJECTS["Service"]["spec"]["ports"]
    assert [port["targetPort"] for port in ports] == [port["name"] for port in CONTAINER["ports"]]
    (endpoint,) = OBJECTS["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == ports[0]["name"] == "http"
    assert endpoint["path"] in PATHS


def test_the_autoscaler_scales_this_deployment_on_a_metric_of_the_server() -> None:
    autoscaler = OBJECTS["HorizontalPodAutoscaler"]["spec"]
    target = autoscaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", DEPLOYMENT["metadata"]["name"])
    assert "replicas" not in DEPLOYMENT["spec"]  # or every rollout would undo the autoscaler
    (metric,) = autoscaler["metrics"]
    exported = Metrics({}).render().decode()
    assert re.search(rf"^{metric['pods']['metric']['name']} ", exported, re.MULTILINE)


def test_it_scales_before_the_queue_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    (metric,) = OBJECTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert int(metric["pods"]["target"]["averageValue"]) < _settings(monkeypatch).queue_images


def test_kustomize_is_told_of_every_file() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == sorted(
        path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml"
    )
