"""What needs no cluster: metrics of several replicas, turns, shared weights, settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from mass_serve.distributed.expositions import FORGET_SECONDS, Expositions
from mass_serve.distributed.settings import load_ray_settings
from mass_serve.distributed.share import resources, with_whole_paths, within_share
from mass_serve.distributed.turns import LEASE_SECONDS, Turns
from mass_serve.distributed.weights import as_arrays, as_tensors
from mass_serve.server.operation.expositions import merged
from mass_serve.server.settings import SettingsError
from mass_serve.server.startup import demo_store


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def counted(requests: int) -> str:
    registry = CollectorRegistry()
    Counter("odd", "Has\nlines and {braces}.", ["path"], registry=registry).labels('/{x} "y"').inc(requests)
    Counter("plain", "Has no labels.", registry=registry).inc(requests)
    Histogram("seconds", "Has buckets.", buckets=(1, 2), registry=registry).observe(requests)
    return generate_latest(registry).decode()


def test_metrics_of_replicas_are_told_apart() -> None:
    families = list(text_string_to_metric_families(merged({"a": counted(3), "b": counted(5)}, "replica")))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "Prometheus takes each metric once"
    samples = {
        (sample.name, sample.labels["replica"], sample.labels.get("path")): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["odd_total", "a", '/{x} "y"'] == 3
    assert samples["odd_total", "b", '/{x} "y"'] == 5
    assert samples["plain_total", "b", None] == 5
    assert samples["seconds_count", "a", None] == samples["seconds_count", "b", None] == 1


def test_a_replica_that_ends_is_not_told_of() -> None:
    clock = Clock()
    expositions = Expositions(clock)
    expositions.tell("killed", "1")
    clock.now += FORGET_SECONDS / 2
    expositions.tell("lives", "2")
    expositions.tell("leaves", "3")
    expositions.forget("leaves")
    assert expositions.current == {"killed": "1", "lives": "2"}
    clock.now += FORGET_SECONDS / 2 + 1
    assert expositions.current == {"lives": "2"}


def test_one_has_the_turn_until_it_gives_it_back_or_dies() -> None:
    clock = Clock()
    turns = Turns(clock)
    assert turns.take("a")
    assert turns.take("a"), "it is kept"
    assert not turns.take("b")
    turns.give_back("b")
    assert not turns.take("b"), "nobody gives back what another has"
    turns.give_back("a")
    assert turns.take("b")
    clock.now += LEASE_SECONDS + 1
    assert turns.take("c")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shared_weights_are_the_same_memory(dtype: torch.dtype) -> None:
    tensors = {"weight": torch.randn(4, 6).to(dtype), "scale": torch.tensor(2.0, dtype=dtype)}
    arrays = as_arrays(tensors)
    for array, _ in arrays.values():
        assert isinstance(array, np.ndarray)
        array.flags.writeable = False  # as Ray gives them back
    views = as_tensors(arrays)
    assert views.keys() == tensors.keys()
    for name, view in views.items():
        assert view.dtype == dtype
        assert torch.equal(view, tensors[name])
        assert view.data_ptr() == tensors[name].data_ptr()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"admin_keys_file": "keys"}, "admin_keys_file cannot be used on Ray: .* one replica of several"),
        ({"grpc_port": "8001"}, "grpc_port cannot be used on Ray"),
        (
            {"min_replicas": "3", "max_replicas": "2"},
            r"min_replicas \(3\) must not exceed max_replicas \(2\)",
        ),
        ({"min_replicas": "0"}, "min_replicas"),
        ({"target_ongoing_requests": "0"}, "target_ongoing_requests"),
    ],
)
def test_what_would_not_hold_for_all_replicas_is_refused(flags: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_ray_settings(flags)


def test_a_process_takes_no_more_than_its_share() -> None:
    one = load_ray_settings({})
    assert resources(one) == {"num_cpus": 1, "num_gpus": 0}
    alone = within_share(one)
    assert (alone.num_threads, alone.decode_workers, alone.device) == (1, 1, "cpu")
    large = load_ray_settings({"num_threads": "4", "decode_workers": "6", "device": "cuda:1"})
    assert resources(large) == {"num_cpus": 4, "num_gpus": 1}
    shared = within_share(large)
    assert (shared.num_threads, shared.decode_workers, shared.device) == (4, 6, "cuda")


def test_paths_are_whole_for_processes_in_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = with_whole_paths(load_ray_settings({"store": "stores/one", "samples": "samples"}))
    assert (whole.store, whole.samples) == (str(tmp_path / "stores" / "one"), tmp_path / "samples")
    assert with_whole_paths(load_ray_settings({"store": "s3://a/b"})).store == "s3://a/b"
    assert with_whole_paths(load_ray_settings({})).store is None


@pytest.mark.parametrize(
    "command", [["ray", "serve"], ["batch", "STORE", "in", "--out", "out", "--ray-workers", "2"]]
)
def test_without_ray_one_line_says_what_to_install(command: list[str], tmp_path: Path) -> None:
    # As if it were not there.
    code = "import sys; sys.modules['ray'] = None; from mass_serve.cli.app import main; main()"
    given = [demo_store() if word == "STORE" else word for word in command]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode in (1, 2)
    assert done.stderr.strip().count("\n") == 0
    assert "pip install 'mass-serve[ray]'" in done.stderr


@pytest.mark.optional("ray")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray has its own
def test_variables_that_are_no_settings_are_named_when_it_is_deployed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mass_serve.distributed.deployment import application

    monkeypatch.setenv("MASS_MIN_REPLICA", "2")
    monkeypatch.setenv("MASS_MAX_REPLICAS", "2")
    with capture_logs() as told:
        application(load_ray_settings({}))
    assert [line["event"] for line in told] == [
        "the variable MASS_MIN_REPLICA is no setting and is passed over; is MASS_MIN_REPLICAS meant?"
    ]
