"""The claim of a port: alone against other nodes and programs, shared among the processes of one node."""

import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
from listening import free_port

from alnnode.cli import check
from alnnode.errors import ServiceError
from alnnode.node import ports
from alnnode.node.ports import NodePort
from alnnode.settings import Listener, Node, Settings, Web


@pytest.fixture
def port() -> NodePort:
    return NodePort("listener", "127.0.0.1", free_port(), shared=True)


def listen(port: NodePort, *, share: bool) -> socket.socket:
    """Return a socket that listens as a process of a node does."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if share:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((port.host, port.port))
    bound.listen()
    return bound


def test_the_processes_of_a_node_share_its_port_and_no_second_node_gets_it(tmp_path, port) -> None:
    with ports.claimed(tmp_path / "first", [port]), listen(port, share=True), listen(port, share=True):
        with pytest.raises(ServiceError, match=rf"another node or program uses port {port.port} of .*\[listener\] port"):
            ports.check(port)
        with pytest.raises(ServiceError, match="another node"), ports.claimed(tmp_path / "second", [port], patience=0):
            pass
    with ports.claimed(tmp_path / "second", [port]):
        pass


def test_two_nodes_that_start_at_the_same_time_do_not_both_get_the_port(tmp_path, port) -> None:
    with ports.claimed(tmp_path / "first", [port]), pytest.raises(ServiceError), ports.claimed(tmp_path / "2", [port], 0):
        pass  # neither listens yet


def test_every_address_conflicts_with_one_address(tmp_path, port) -> None:
    with ports.claimed(tmp_path, [port._replace(host="0.0.0.0")]), listen(port, share=True), pytest.raises(ServiceError):
        ports.check(port)


@pytest.mark.parametrize("share", [True, False])
def test_the_port_of_another_program_is_refused(port, share) -> None:
    with listen(port, share=share), pytest.raises(ServiceError, match="another node or program"):
        ports.check(port)


def test_a_port_of_connections_that_ended_is_free(port) -> None:
    server = listen(port, share=True)
    client = socket.create_connection((port.host, port.port))
    accepted, _ = server.accept()
    accepted.close()  # it ends first, and its side of the connection remains in TIME_WAIT
    client.close()
    server.close()
    ports.check(port)


def test_a_node_that_starts_again_waits_for_the_processes_of_the_one_that_was_killed(tmp_path, port) -> None:
    with ExitStack() as stack:
        command = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(flush=True); time.sleep(1)"
        old = stack.enter_context(subprocess.Popen([sys.executable, "-c", command, str(port.port)], stdout=subprocess.PIPE))
        assert old.stdout is not None
        old.stdout.readline()
        stack.enter_context(ports.claimed(tmp_path, [port], patience=60))


def test_a_host_that_is_not_of_this_machine_and_a_name_that_does_not_exist_are_explained(port) -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(ServiceError, match=rf"{host} is not an address of this machine: correct \[listener\] host"):
            ports.check(port._replace(host=host))


def test_check_names_a_port_that_another_program_uses_and_not_that_of_the_node_itself(tmp_path) -> None:
    settings = Settings(node=Node(data_dir=tmp_path), listener=Listener(port=free_port()), web=Web(port=free_port()))
    listener, web = ports.ports_of(settings)
    assert all(result.passed for result in check.ports(settings))
    with ports.claimed(tmp_path, [listener, web]), listen(listener, share=True), listen(web, share=False):
        assert [result.found for result in check.ports(settings)] == [
            f"this node listens on port {listener.port} of 127.0.0.1",
            f"this node listens on port {web.port} of 127.0.0.1",
        ]
    with listen(web, share=False):
        free, used = check.ports(settings)
        assert free.passed
        assert not used.passed
        assert f"port {web.port}" in used.found


def test_a_second_node_on_the_same_port_does_not_start(tmp_path, port) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[node]\ndata_dir = "{tmp_path / "second"}"\n[listener]\nport = {port.port}\n[web]\nenabled = false\n')
    with ports.claimed(tmp_path / "first", [port]), listen(port, share=True):
        command = [sys.executable, "-m", "alnnode", "serve", "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"another node or program uses port {port.port} of 127.0.0.1: stop it")
