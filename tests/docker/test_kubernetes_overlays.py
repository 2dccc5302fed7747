"""Every folder of manifests renders, to objects that Kubernetes knows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.kustomize import FILE, CycleError, Object, identity, rendered
from tests.docker.material import DOCKER, environment, last

FOLDER = DOCKER / "k8s"
FOLDERS = sorted(path.parent.relative_to(FOLDER).as_posix() for path in FOLDER.rglob(FILE))
KINDS = {
    *("Deployment", "Service", "PersistentVolumeClaim", "PodDisruptionBudget"),
    *("HorizontalPodAutoscaler", "ServiceMonitor"),
}


# The operators' own kinds, of whose schemas no package is at hand.
FOREIGN = {"ServiceMonitor", "ScaledObject"}


def kinds(folder: str) -> set[str]:
    """What a folder renders to."""
    return (KINDS - {"HorizontalPodAutoscaler"}) | {"ScaledObject"} if folder == "keda" else KINDS


def pod(objects: list[Object]) -> dict[str, Any]:
    (deployment,) = [one for one in objects if one["kind"] == "Deployment"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_there_are_overlays() -> None:
    assert FOLDERS == [".", "base", "cuda", "keda"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_renders_all_objects(folder: str) -> None:
    objects = rendered(FOLDER / folder)
    assert sorted(one["kind"] for one in objects) == sorted(kinds(folder))
    for one in objects:
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "mass-serve"


@pytest.mark.parametrize(("folder", "target"), [(".", "cpu"), ("cuda", "cuda"), ("keda", "cpu")])
def test_the_image_is_the_targets(folder: str, target: str) -> None:
    (container,) = pod(rendered(FOLDER / folder))["containers"]
    assert container["image"] == f"mass-serve:{target}"


def test_the_gpu_variant_adds_and_takes_nothing_away() -> None:
    with_gpu, without = pod(rendered(FOLDER / "cuda")), pod(rendered(FOLDER))
    (container,), (plain,) = with_gpu["containers"], without["containers"]
    limits = container["resources"]["limits"]
    assert limits == {**plain["resources"]["limits"], "nvidia.com/gpu": 1}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.pop("kernels") == last("cuda", "VOLUME")
    assert environment("cuda")["TRITON_CACHE_DIR"].startswith(last("cuda", "VOLUME"))
    assert mounts == {mount["name"]: mount["mountPath"] for mount in plain["volumeMounts"]}
    volumes = {volume["name"] for volume in with_gpu["volumes"]}
    assert volumes == {"kernels", *mounts}
    for key in ("args", "env", "ports", "securityContext", "startupProbe", "readinessProbe", "livenessProbe"):
        assert container[key] == plain[key]


def test_keda_scales_as_the_autoscaler_does_and_needs_no_adapter() -> None:
    (scaler,) = [one["spec"] for one in rendered(FOLDER / "keda") if one["kind"] == "ScaledObject"]
    (plain,) = [one["spec"] for one in rendered(FOLDER) if one["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["scaleTargetRef"] == plain["scaleTargetRef"]
    limits = (scaler["minReplicaCount"], scaler["maxReplicaCount"])
    assert limits == (plain["minReplicas"], plain["maxReplicas"])
    assert limits[0] <= scaler["fallback"]["replicas"] <= limits[1]
    assert scaler["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == plain["behavior"]
    (trigger,), (metric,) = scaler["triggers"], plain["metrics"]
    assert trigger["metadata"]["threshold"] == metric["pods"]["target"]["averageValue"]
    query = trigger["metadata"]["query"]
    (service,) = [one for one in rendered(FOLDER / "keda") if one["kind"] == "Service"]
    servers = f'namespace="default",job="{service["metadata"]["name"]}"'
    assert query == f"sum({metric['pods']['metric']['name']}{{{servers}}})"
    assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes text alone"


def test_a_folder_that_includes_the_one_it_lies_in_is_refused(tmp_path: Path) -> None:
    """As kustomize does it, with "cycle detected"."""
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / FILE).write_text("resources: []")
    (below / FILE).write_text("resources: [..]")
    with pytest.raises(CycleError):
        rendered(below)


@pytest.mark.optional("kubernetes")
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_knows_what_is_rendered(folder: str) -> None:
    import kubernetes_validate

    for one in rendered(FOLDER / folder):
        if one["kind"] not in FOREIGN:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.optional("kubernetes")
def test_a_field_that_is_misspelt_is_found() -> None:
    import kubernetes_validate

    objects = rendered(FOLDER)
    (deployment,) = [one for one in objects if one["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["volume"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.optional("helm")
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubectl_renders_the_same(folder: str) -> None:
    command = ["kubectl", "kustomize", str(FOLDER / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = {identity(one): one for one in yaml.safe_load_all(done.stdout)}
    ours = {identity(one): one for one in rendered(FOLDER / folder)}
    assert _sorted(ours) == _sorted(theirs)


def _sorted(value: Any) -> Any:
    """With lists of objects in one order: kustomize puts what a patch adds first."""
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_sorted(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value
