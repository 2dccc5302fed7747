"""Signed stores: only what a trusted key vouches for is opened, and OpenSSL agrees."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from mass_serve.engine import Engine, EngineOptions, StoreSource
from mass_serve.model_store.errors import ManifestError, SignatureError, StoreLockedError
from mass_serve.model_store.format.file_names import MANIFEST_FILE, SIGNATURE_FILE
from mass_serve.model_store.revisions import add_task, prune_store, remove_task
from mass_serve.model_store.sign_store import sign_store
from mass_serve.model_store.signing import SigningKey, TrustedKeys
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from tests.models import Suite

PLAIN = NoEncryption()


def private_pem(key: Ed25519PrivateKey, how: KeySerializationEncryption = PLAIN) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


def public_pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def written(path: Path, *content: bytes) -> Path:
    path.write_bytes(b"".join(content))
    path.chmod(0o600)
    return path


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def private(key: Ed25519PrivateKey, tmp_path: Path) -> Path:
    return written(tmp_path / "private.pem", private_pem(key))


@pytest.fixture
def trusted(key: Ed25519PrivateKey, tmp_path: Path) -> Path:
    return written(tmp_path / "public.pem", public_pem(key))


@pytest.fixture
def signed(store: Path, private: Path) -> Path:
    """A store of two tasks, signed."""
    sign_store(store, SigningKey.read(private))
    return store


def test_a_signed_store_is_opened_and_served(signed: Path, trusted: Path) -> None:
    assert Store.open(signed, trusted).verify() == []
    source = StoreSource(str(signed), EngineOptions(device="cpu", trusted_keys=trusted))
    assert source.revision() == source.load().store_revision
    assert Engine.load(str(signed), device="cpu", trusted_keys=trusted).tasks.keys() == {"digits", "street"}


def test_an_unsigned_store_is_refused(store: Path, trusted: Path) -> None:
    with pytest.raises(SignatureError, match="is not signed, and only stores signed by a trusted key are"):
        Store.open(store, trusted)
    with pytest.raises(SignatureError, match="is not signed"):
        Engine.load(str(store), device="cpu", trusted_keys=trusted)
    assert Store.open(store).manifest, "nobody asked for a signature"


def test_any_of_several_keys_is_enough(signed: Path, key: Ed25519PrivateKey, tmp_path: Path) -> None:
    other = Ed25519PrivateKey.generate()
    Store.open(signed, written(tmp_path / "both.pem", b"# ours\n", public_pem(other), public_pem(key)))
    with pytest.raises(SignatureError, match=r"the signature of .* is not one of its manifest by a key in"):
        Store.open(signed, written(tmp_path / "other.pem", public_pem(other)))


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"x" * 64, b"x" * 65])
def test_another_signature_is_refused(signed: Path, trusted: Path, content: bytes) -> None:
    (signed / SIGNATURE_FILE).write_bytes(content)
    with pytest.raises(SignatureError, match="must sign it with `mass-serve sign`"):
        Store.open(signed, trusted)


def test_one_bit_of_the_manifest_or_of_a_file_is_enough(signed: Path, trusted: Path) -> None:
    manifest = (signed / MANIFEST_FILE).read_bytes()
    (signed / MANIFEST_FILE).write_bytes(manifest.rstrip())  # the same JSON
    with pytest.raises(SignatureError):
        Store.open(signed, trusted)
    (signed / MANIFEST_FILE).write_bytes(manifest)
    head = next(signed.glob("tasks/*/*/head.safetensors"))
    head.write_bytes(head.read_bytes()[:-1] + b"\x01")
    assert len(Store.open(signed, trusted).verify()) == 1


def test_a_fifo_is_no_signature(signed: Path, trusted: Path) -> None:
    (signed / SIGNATURE_FILE).unlink()
    os.mkfifo(signed / SIGNATURE_FILE)
    with pytest.raises(SignatureError, match="cannot be read: it is a FIFO"):
        Store.open(signed, trusted)


def test_a_changed_store_is_signed_again(signed: Path, trusted: Path, private: Path, suite: Suite) -> None:
    """Until then a server has its old engine and an error that says why."""
    source = StoreSource(str(signed), EngineOptions(device="cpu", trusted_keys=trusted))
    engine = source.load()
    add_task(signed, suite.tasks[2])
    with pytest.raises(SignatureError, match="whoever vouches for the store as it is now must sign it"):
        source.revision()
    with pytest.raises(SignatureError):
        source.load(previous=engine)
    sign_store(signed, SigningKey.read(private))
    assert len(source.load(previous=engine).tasks) == 3


def test_pruning_keeps_the_signature(signed: Path, trusted: Path, private: Path) -> None:
    remove_task(signed, "digits")
    sign_store(signed, SigningKey.read(private))
    assert SIGNATURE_FILE not in prune_store(signed)
    assert (signed / SIGNATURE_FILE).exists()
    sign_store(signed, SigningKey.read(private))
    assert Store.open(signed, trusted).verify() == []


class Racing(LocalFiles):
    """Files of which a writer puts new ones in place each time between the two that a reader reads."""

    def __init__(self, root: Path, versions: list[Path]) -> None:
        super().__init__(root)
        self.versions = versions

    def read_bytes(self, path: str) -> bytes:
        content = super().read_bytes(path)
        if path == MANIFEST_FILE and self.versions:
            newer = self.versions.pop()
            shutil.copy(newer / MANIFEST_FILE, self.root)
            shutil.copy(newer / SIGNATURE_FILE, self.root)
        return content


def test_a_store_signed_while_it_is_opened(
    signed: Path, trusted: Path, private: Path, tmp_path: Path, built: Path
) -> None:
    older = shutil.copytree(signed, tmp_path / "older")
    newer = shutil.copytree(built, tmp_path / "newer")
    prune_store(newer)
    remove_task(newer, "digits")
    revision = sign_store(newer, SigningKey.read(private)).manifest.store_revision
    assert Store.open_files(Racing(signed, [newer]), trusted).manifest.store_revision == revision
    with pytest.raises(SignatureError):
        Store.open_files(Racing(signed, [newer, older] * 100), trusted)


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, store: Path, tmp_path: Path) -> Iterator[StoreFiles]:
    """A store of two tasks at either kind of place."""
    files = open_files(tmp_path / "copy" if request.param == "local" else "memory://bucket/signed")
    for path in [MANIFEST_FILE, *Store.open(store).manifest.all_files()]:
        files.write_bytes(path, (store / path).read_bytes())
    yield files
    fsspec.filesystem("memory").store.clear()


def test_signing_is_a_write_like_others(place: StoreFiles, private: Path, trusted: Path) -> None:
    with place.lock(), pytest.raises(StoreLockedError):
        sign_store(place.url, SigningKey.read(private))
    sign_store(place.url, SigningKey.read(private))
    assert len(place.read_bytes(SIGNATURE_FILE)) == 64
    Store.open(place.url, trusted)
    assert Store.open(place.url, trusted).load_head("digits").kind == "cosine"


def test_what_is_no_store_is_not_signed(tmp_path: Path, store: Path, private: Path) -> None:
    key = SigningKey.read(private)
    with pytest.raises(ManifestError, match="there is no store"):
        sign_store(tmp_path / "nowhere", key)
    assert not (tmp_path / "nowhere").exists()
    (store / MANIFEST_FILE).write_text("{}")
    with pytest.raises(ManifestError):
        sign_store(store, key)
    assert not (store / SIGNATURE_FILE).exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="keys and signatures of OpenSSL's own need it")
def test_openssl_makes_keys_and_checks_signatures(store: Path, tmp_path: Path) -> None:
    def openssl(*arguments: str) -> str:
        return subprocess.run(
            ["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    openssl("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
    sign_store(store, SigningKey.read(tmp_path / "key.pem"))
    manifest, signature = str(store / MANIFEST_FILE), str(store / SIGNATURE_FILE)
    verify = ("-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", manifest, "-sigfile", signature)
    assert "Signature Verified Successfully" in openssl("pkeyutl", *verify)
    openssl("pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", manifest, "-out", signature)
    Store.open(store, tmp_path / "public.pem")


class TestKeyFiles:
    def test_who_can_read_a_private_key(self, private: Path) -> None:
        assert not SigningKey.read(private).is_open_to_others
        private.chmod(0o640)
        assert SigningKey.read(private).is_open_to_others

    def refuses_to_sign(self, path: Path, sentence: str) -> None:
        with pytest.raises(SignatureError, match=sentence) as caught:
            SigningKey.read(path)
        assert "\n" not in str(caught.value)

    def refuses_to_trust(self, path: Path, sentence: str) -> None:
        with pytest.raises(SignatureError, match=sentence) as caught:
            TrustedKeys.read(path)
        assert "\n" not in str(caught.value)

    def test_other_keys(self, tmp_path: Path) -> None:
        rsa = generate_private_key(65537, 2048)
        private = rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN)
        public = rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.refuses_to_sign(
            written(tmp_path / "a", private), "is not an Ed25519 key: make one with `openssl"
        )
        self.refuses_to_trust(written(tmp_path / "b", public), "is not an Ed25519 key")

    def test_one_for_the_other(self, private: Path, trusted: Path) -> None:
        self.refuses_to_sign(trusted, "holds a public key: signing needs a private key")
        self.refuses_to_trust(private, "holds a private key: give the public one")

    def test_an_encrypted_key(self, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        path = written(tmp_path / "key", private_pem(key, BestAvailableEncryption(b"secret")))
        self.refuses_to_sign(path, "is encrypted: decrypt it with `openssl pkey")
        self.refuses_to_trust(path, "holds a private key")

    @pytest.mark.parametrize("content", [b"", b"x", b"-----BEGIN PUBLIC KEY-----\n"])
    def test_no_key(self, content: bytes, tmp_path: Path) -> None:
        self.refuses_to_trust(written(tmp_path / "key", content), "holds no public key in PEM form")
        self.refuses_to_sign(written(tmp_path / "key", content), "signing needs a private key")

    def test_damaged_keys(self, tmp_path: Path) -> None:
        for kind, refuses in (("PRIVATE", self.refuses_to_sign), ("PUBLIC", self.refuses_to_trust)):
            text = f"-----BEGIN {kind} KEY-----\nAAAA\n-----END {kind} KEY-----\n"
            refuses(written(tmp_path / kind, text.encode()), "cannot be read: it is damaged or unknown")
        certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        self.refuses_to_trust(written(tmp_path / "c", certificate), "holds a CERTIFICATE: only public keys")

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for path, problem in (("gone", "No such file"), ("fifo", "it is a FIFO"), (".", "it is a folder")):
            self.refuses_to_sign(tmp_path / path, f"cannot be read: {problem}")
            self.refuses_to_trust(tmp_path / path, f"cannot be read: {problem}")

    def test_without_the_library(self, trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        self.refuses_to_trust(trusted, r"pip install 'mass-serve\[signing\]'")
