"""A server says which arithmetic it chose, wherever it is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server_processes import serving


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_the_dtype_is_in_the_log_the_list_of_tasks_and_the_metrics(built: Path, dtype: str) -> None:
    with serving(built, dtype=dtype) as server:
        server.wait_until_ready()
        said = json.loads(server.log().splitlines()[0])["dtype"]
        assert said == dtype or (dtype == "auto" and said in {"float32", "bfloat16"})
        assert server.client.get("/v1/tasks").json()["dtype"] == said
        infos = [
            line for line in server.client.get("/metrics").text.splitlines() if "mass_build_info{" in line
        ]
        assert [f'dtype="{said}"' in line for line in infos] == [True]
