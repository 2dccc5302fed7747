"""What gRPC shows its callers in TLS: the certificate of HTTP, read again when it is renewed."""

from __future__ import annotations

import grpc

from mass_serve.server.serving.tls import Identity, TlsFiles


def credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Returns credentials for a port. gRPC asks for news with every connection, on a thread of its own."""
    shown = tls.current

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        current = tls.current
        if current is shown:
            return None
        shown = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(_configuration(shown), renewed)


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.chain)])
