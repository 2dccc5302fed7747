"""A store's next revision on the command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mass_serve.model_store.store import Store
from tests.cli.test_stores import failure, run, run_json


def revision(url: Path | str) -> str:
    return Store.open(url).manifest.store_revision


def test_a_change_is_made_beside_the_store_and_promoted(store: Path) -> None:
    before, following = revision(store), f"{store}#next"
    made = run_json("task", "remove", following, "street")
    assert made["store"] == following
    assert revision(store) == before
    assert (
        f"next revision, not in service: {made['store_revision']}, which is {following}\n"
        in run("inspect", store)[0]
    )
    assert run_json("inspect", store)["next_revision"] == made["store_revision"]
    assert "next revision" not in run("inspect", following)[0]
    assert "street" not in run("inspect", following)[0].partition("removed, kept")[0]
    run("verify", following)
    promoted = run_json("next", "promote", store, "--revision", made["store_revision"])
    assert promoted == {"store": str(store), "store_revision": made["store_revision"]}
    assert revision(store) == made["store_revision"]
    assert run_json("inspect", store)["next_revision"] is None


def test_a_next_revision_is_discarded(store: Path) -> None:
    run("task", "remove", f"{store}#next", "street")
    assert run("next", "discard", store)[0] == f"{store}: revision {revision(store)}, and no next one\n"
    assert "has no next revision: make one" in failure("next", "promote", store)


def test_another_revision_than_is_meant_is_not_promoted(store: Path) -> None:
    run("task", "remove", f"{store}#next", "street")
    assert "compare it again" in failure("next", "promote", store, "--revision", revision(store))


def test_a_next_revision_is_signed_before_it_is_promoted(store: Path, tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    run("sign", store, "--key", private)
    run("task", "remove", f"{store}#next", "street")
    assert Store.open(store, public).manifest.find_task("street"), "the store is still the one signed"
    run("sign", f"{store}#next", "--key", private)
    signed = Store.open(f"{store}#next", public).manifest
    assert "sign it again" not in run("next", "promote", store)[1]
    assert Store.open(store, public).manifest == signed
    run("task", "rollback", f"{store}#next", "street")
    assert "sign it again" in run("next", "promote", store)[1]
