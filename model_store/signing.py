"""Signatures of manifests: whoever has a public key can tell that a store is what the key's owner signed.

    sign_store("my-store", SigningKey.read(Path("private.pem")))
    Store.open("my-store", trusted_keys=Path("public.pem"))

`manifest.json.sig` is the raw Ed25519 signature (RFC 8032), 64 bytes, of the exact bytes of `manifest.json`,
and the manifest has the SHA-256 of every other file. There is no prefix and no envelope, so that OpenSSL
alone can make and check one (`openssl pkeyutl -rawin`); its price: a key for stores must sign nothing else.
"""

from __future__ import annotations

import importlib.util
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mass_serve.model_store.errors import SignatureError
from mass_serve.model_store.format.file_names import MANIFEST_FILE, SIGNATURE_FILE
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.regular_files import RegularFile

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
# So often a writer may put another manifest or signature in place while the two are read.
_READINGS = 5
_MAKE_ONE = "make one with `openssl genpkey -algorithm ed25519`"


@dataclass(frozen=True)
class SigningKey:
    """A private key, and whether other users of this machine can read it."""

    key: Ed25519PrivateKey
    is_open_to_others: bool

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Reads an Ed25519 private key from a PEM file. Raises SignatureError."""
        content, is_open_to_others = _read(path)
        return cls(_private_key(path, content), is_open_to_others)

    def sign(self, content: bytes) -> bytes:
        """Returns the signature of some bytes."""
        return self.key.sign(content)


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys of those whose stores are served."""

    path: Path
    keys: tuple[Ed25519PublicKey, ...]

    @classmethod
    def read(cls, path: Path) -> TrustedKeys:
        """Reads one or more Ed25519 public keys from a PEM file. Raises SignatureError."""
        content, _ = _read(path)
        blocks = list(_BLOCK.finditer(content))
        if not blocks:
            raise SignatureError(f"{path} holds no public key in PEM form")
        return cls(path, tuple(_public_key(path, block[1], block[0]) for block in blocks))

    def have_signed(self, content: bytes, signature: bytes) -> bool:
        """Tells whether the signature is one of these bytes by one of the keys."""
        return any(_is_signature(key, content, signature) for key in self.keys)


def signed_manifest(files: StoreFiles, trusted: TrustedKeys) -> bytes:
    """Reads the manifest of a store that a trusted key has signed. Raises SignatureError, and OSError.

    Manifest and signature are two files. Where they do not fit because one was written between the two
    readings, they are read again; a manifest that is newer than its signature is refused until it is signed.
    """
    before = None
    for _ in range(_READINGS):
        found = files.read_bytes(MANIFEST_FILE), _read_signature(files)
        if trusted.have_signed(*found):
            return found[0]
        if found == before:
            break
        before = found
    raise SignatureError(
        f"the signature of {files.url} is not one of its manifest by a key in {trusted.path}: "
        "whoever vouches for the store as it is now must sign it with `mass-serve sign`"
    )


def _read_signature(files: StoreFiles) -> bytes:
    try:
        return files.read_bytes(SIGNATURE_FILE)
    except FileNotFoundError as error:
        raise SignatureError(
            f"{files.url} is not signed, and only stores signed by a trusted key are opened: "
            "sign it with `mass-serve sign`"
        ) from error
    except OSError as error:
        problem = error.strerror or error
        raise SignatureError(f"{SIGNATURE_FILE} in {files.url} cannot be read: {problem}") from error


def _read(path: Path) -> tuple[bytes, bool]:
    try:
        with RegularFile.open(path) as file:
            return file.read_text_bytes(), bool(file.permissions & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError as error:
        raise SignatureError(f"the key file {path} cannot be read: {error.strerror}") from error


def _private_key(path: Path, content: bytes) -> Ed25519PrivateKey:
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"PRIVATE KEY-----" not in content:
        kind = "a public key" if b"PUBLIC KEY-----" in content else "no private key in PEM form"
        raise SignatureError(f"{path} holds {kind}: signing needs a private key; {_MAKE_ONE}")
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise SignatureError(
            f"the private key in {path} is encrypted: decrypt it with `openssl pkey -in {path}`"
        ) from error
    except _unusable() as error:
        raise SignatureError(f"the private key in {path} cannot be read: it is damaged or unknown") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"the private key in {path} is not an Ed25519 key: {_MAKE_ONE}")
    return key


def _public_key(path: Path, label: bytes, block: bytes) -> Ed25519PublicKey:
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if label.endswith(b"PRIVATE KEY"):
        raise SignatureError(
            f"{path} holds a private key: give the public one, "
            f"which `openssl pkey -in {path} -pubout` prints, and keep this one away from servers"
        )
    if label != b"PUBLIC KEY":
        raise SignatureError(f"{path} holds a {label.decode()}: only public keys in PEM form are trusted")
    try:
        key = load_pem_public_key(block)
    except _unusable() as error:
        raise SignatureError(f"a public key in {path} cannot be read: it is damaged or unknown") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"a public key in {path} is not an Ed25519 key")
    return key


def _is_signature(key: Ed25519PublicKey, content: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _need_cryptography() -> None:
    """Raises SignatureError where the library is missing that only those need who sign or trust keys."""
    if importlib.util.find_spec("cryptography") is None:
        raise SignatureError("signatures need cryptography: pip install 'mass-serve[signing]'")


def _unusable() -> tuple[type[Exception], ...]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return ValueError, UnsupportedAlgorithm
