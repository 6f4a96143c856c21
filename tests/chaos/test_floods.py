"""The fuzzer finds an HTTP service that keeps request heads without end, and finds nothing wrong with the service."""

import pytest

from chaos import floods


@pytest.mark.parametrize(("bug", "found"), [("", False), ("endless-heads", True)])
def test_it_finds_a_service_that_keeps_heads_without_end(tmp_path, bug, found) -> None:
    with floods.service(tmp_path, bug) as (pid, port):
        assert bool(floods.flood(port, pid, "one header field")) is found
        assert floods.talk(port, floods.WHOLE[0]) == ""
        assert floods.lives(port)
