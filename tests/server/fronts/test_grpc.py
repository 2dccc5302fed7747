"""gRPC of front ends: one port, the same answers, metrics of all, and no second server on the port."""

from __future__ import annotations

import signal
from contextlib import ExitStack

from tests.pictures import picture
from tests.server.fronts.test_front_ends import CONNECTIONS, all_gone, samples
from tests.server.rpc.servers import address, channel, grpc_server, image_request, method
from tests.server_processes import PATIENCE, running


def test_front_ends_share_the_port_of_grpc() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(grpc_server(front_ends=2))
        for number in range(CONNECTIONS):
            with channel(server) as connection:
                answer = method(connection, "ModelInfer")(image_request(picture(number)), timeout=PATIENCE)
            assert answer.outputs
        counted = samples(server, "mass_requests_total", protocol="grpc", code="200")
        assert sum(counted.values()) == CONNECTIONS
        assert counted["front_end_1"] > 0
        assert counted["front_end_2"] > 0
        port = int(address(server).rpartition(":")[2])
        for front_ends in (1, 2):
            with running(0.0, {"front_ends": front_ends, "grpc_port": port}) as second:
                assert second.process.wait(PATIENCE) != 0
                assert "choose another --grpc-port" in second.log()
        with all_gone(server):
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE) == 0
