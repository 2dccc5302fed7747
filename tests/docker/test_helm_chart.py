"""The Helm chart renders what the manifests of kustomize are, and refuses values that mean nothing."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

import mass_serve
from mass_serve.server.settings import Settings
from tests.docker.kustomize import Object, rendered
from tests.docker.material import DOCKER, read_yaml
from tests.docker.test_kubernetes_overlays import FOREIGN, pod

CHART = DOCKER / "helm"
VALUES = read_yaml(CHART / "values.yaml")
AS_KUSTOMIZE = ("autoscaling.by=adapter", "monitor=true")

helm = pytest.mark.optional("helm")


def templated(*values: str, release: str = "mass-serve") -> list[Object]:
    """The objects of a release with some values changed."""
    command = [
        "helm",
        "template",
        release,
        str(CHART),
        *(word for value in values for word in ("--set", value)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def refusal(*values: str) -> str:
    command = ["helm", "template", "x", str(CHART), *(word for value in values for word in ("--set", value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stderr


def _what_it_is(value: Any) -> Any:
    """An object without who made it (its namespace, all labels but the name), with sorted variables."""
    if isinstance(value, list):
        listed = [_what_it_is(one) for one in value]
        named = all(isinstance(one, dict) and "name" in one for one in listed)
        return sorted(listed, key=lambda one: str(one["name"])) if named else listed
    if not isinstance(value, dict):
        return value
    return {key: _what_it_is(one) for key, one in value.items() if not _says_who_made_it(key)}


def _says_who_made_it(key: str) -> bool:
    is_label = key.startswith(("app.kubernetes.io/", "helm.sh/"))
    return key == "namespace" or (is_label and not key.endswith("/name"))


def _by_kind(objects: list[Object]) -> dict[str, Any]:
    for one in objects:
        # The labels of an object itself select nothing but those of the service, which the monitor asks for.
        if one["kind"] != "Service":
            one["metadata"].pop("labels", None)
        one["metadata"].pop("annotations", None)
    return {one["kind"]: _what_it_is(one) for one in objects}


def test_the_chart_is_the_packages_and_its_settings_are_the_servers() -> None:
    chart = read_yaml(CHART / "Chart.yaml")
    assert chart["appVersion"] == mass_serve.__version__
    assert VALUES["settings"].keys() <= Settings.model_fields.keys()


@helm
@pytest.mark.parametrize(
    ("folder", "values"),
    [
        (".", AS_KUSTOMIZE),
        ("cuda", (*AS_KUSTOMIZE, "gpus=1")),
        ("keda", ("autoscaling.by=keda", "monitor=true")),
    ],
)
def test_it_renders_what_kustomize_does(folder: str, values: tuple[str, ...]) -> None:
    theirs, ours = _by_kind(rendered(DOCKER / "k8s" / folder)), _by_kind(templated(*values))
    container = ours["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container.pop("imagePullPolicy") == VALUES["image"]["pullPolicy"]
    assert ours["Service"]["spec"].pop("type") == VALUES["service"]["type"]
    if folder == "keda":
        # Half way between the bounds here, and a number of the user's there.
        for one in (ours, theirs):
            assert one["ScaledObject"]["spec"]["fallback"].pop("replicas")
    assert ours == theirs


@helm
def test_helm_finds_nothing_to_complain_of() -> None:
    done = subprocess.run(
        ["helm", "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@helm
@pytest.mark.optional("kubernetes")
@pytest.mark.parametrize(
    "values",
    [
        (),
        (*AS_KUSTOMIZE, "gpus=2"),
        ("store.url=s3://bucket/store", "keys=", "autoscaling.by=keda"),
        ("ingress.host=a.example.com", "ingress.className=nginx", "ingress.tls=certificate"),
        ("store.claim=mine", "nodeSelector.a=b", "tolerations[0].operator=Exists", "env[0].name=A"),
        (
            "image.pullSecrets[0].name=a",
            "serviceAccount=b",
            "podAnnotations.c=d",
            "envFrom[0].secretRef.name=e",
        ),
    ],
)
def test_kubernetes_knows_what_is_rendered(values: tuple[str, ...]) -> None:
    import kubernetes_validate

    objects = templated(*values)
    assert objects
    for one in objects:
        if one["kind"] not in FOREIGN:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


@helm
def test_two_releases_do_not_meet() -> None:
    one, other = templated(release="one"), templated(release="other")
    names = [{(found["kind"], found["metadata"]["name"]) for found in objects} for objects in (one, other)]
    assert not names[0] & names[1]
    (selector,) = [found["spec"]["selector"] for found in one if found["kind"] == "Service"]
    (deployment,) = [found for found in other if found["kind"] == "Deployment"]
    assert not selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


@helm
def test_settings_are_written_as_the_server_reads_them() -> None:
    objects = templated(
        "settings.max_body_bytes=33554432", "settings.batch_delay=0.005", "settings.tracing=true",
        "settings.request_timeout=60",
    )  # fmt: skip
    (container,) = pod(objects)["containers"]
    told = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert told["MASS_MAX_BODY_BYTES"] == "33554432"
    assert told["MASS_BATCH_DELAY"] == "0.005"
    assert told["MASS_TRACING"] == "true"
    assert pod(objects)["terminationGracePeriodSeconds"] == 15 + 2 * 60 + 5


@helm
def test_a_store_at_a_url_needs_no_claim_and_room_for_its_files() -> None:
    objects = templated("store.url=s3://bucket/store", "store.size=5Gi")
    assert "PersistentVolumeClaim" not in {one["kind"] for one in objects}
    volumes = {volume.pop("name"): volume for volume in pod(objects)["volumes"]}
    assert volumes.keys() == {"keys", "tmp"}
    assert volumes["tmp"] == {"emptyDir": {"sizeLimit": "5Gi"}}


@helm
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("imag.tag=x", "additional properties 'imag' not allowed"),
        ("settings.port=1", "invalid propertyName 'port'"),
        ("settings.drain_seconds=null", "missing property 'drain_seconds'"),
        ("autoscaling.by=hpa", "value must be one of 'none', 'adapter', 'keda'"),
        ("store.url=bucket", "'bucket' does not match pattern"),
        ("gpus=-1", "minimum"),
    ],
)
def test_values_that_mean_nothing_are_refused(value: str, sentence: str) -> None:
    assert sentence in refusal(value)
