"""Whose requests have a share, and which need none."""

from ipaddress import ip_network

import anyio
import pytest

from alnnode.http.address_share import SHARE, AddressShare


async def in_progress(share, *scopes) -> int:
    """Send 40 requests of each kind that do not end, and return how many reach the application."""
    reached = 0

    async def answer(_scope, _receive, _send) -> None:
        nonlocal reached
        reached += 1
        await anyio.sleep_forever()

    share._app = answer
    async with anyio.create_task_group() as group:
        for scope in scopes * 40:
            group.start_soon(share, scope, None, None)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    return reached


def request(method="GET", path="/dicom-web/studies", address="192.0.2.7", kind="http"):
    return {"type": kind, "method": method, "path": path, "client": (address, 4711)}


@pytest.mark.parametrize(
    ("scope", "reached"),
    [
        (request(), SHARE),
        (request("POST", "/search"), SHARE),
        (request("POST", "/dicom-web/workitems"), SHARE),
        (request("POST"), 40),
        (request("POST", "/dicom-web/studies/1.2.3"), 40),
        (request(path="/health/ready"), 40),
        (request(address="10.0.0.7"), 40),
        (request(kind="websocket"), 40),
    ],
)
def test_which_requests_wait(scope, reached) -> None:
    share = AddressShare(None, [ip_network("10.0.0.0/8")])
    assert anyio.run(in_progress, share, scope) == reached
    assert share._turns._addresses == {}, "an address is kept after its requests"
    assert anyio.run(in_progress, share, scope) == reached


def test_another_address_has_a_share_of_its_own() -> None:
    share = AddressShare(None, [])
    assert anyio.run(in_progress, share, request(), request(address="192.0.2.8")) == 2 * SHARE
