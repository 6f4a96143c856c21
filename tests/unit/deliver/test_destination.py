"""The interface of destinations, the choice of one by its settings, and the destination in memory."""

import pytest

from alnnode.deliver.cstore import CStoreDestination
from alnnode.deliver.destination import BatchFailures, OutboxFile
from alnnode.deliver.destination_choice import CONNECTORS, connect
from alnnode.deliver.in_memory_destination import InMemoryDestination
from alnnode.deliver.stow_client import StowDestination
from alnnode.errors import DeliveryError, DeliveryRefused
from alnnode.settings import DestinationCStore, DestinationStow
from alnnode.settings.deliver import DESTINATIONS


def test_connect_chooses_by_kind() -> None:
    cstore = connect(DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=104), "NODE")
    stow = connect(DestinationStow(name="web", url="http://127.0.0.1/dicom-web"), "NODE")
    assert isinstance(cstore, CStoreDestination)
    assert isinstance(stow, StowDestination)
    assert (cstore.name, stow.name) == ("pacs", "web")


def test_every_kind_of_the_settings_has_a_connector() -> None:
    assert set(CONNECTORS) == set(DESTINATIONS)


def test_the_destination_in_memory_stores_bytes_and_fails_when_told(tmp_path) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(b"bytes")
    fake = InMemoryDestination(failures=[DeliveryError("down")])
    with pytest.raises(DeliveryError, match="down"):
        fake.send([OutboxFile("1.2", "1.2.3", "1.2.840.10008.1.2.1", file)])
    assert fake.stored == {}
    fake.send([OutboxFile("1.2", "1.2.3", "1.2.840.10008.1.2.1", file)])
    assert fake.stored == {"1.2.3": b"bytes"}


def test_a_refusal_counts_before_a_delay() -> None:
    with pytest.raises(DeliveryRefused, match="^never"):
        BatchFailures(refused=["never"], later=["later"]).raise_if_any()


def test_equal_messages_appear_once_and_many_are_counted() -> None:
    with pytest.raises(DeliveryError) as caught:
        BatchFailures(later=["a", "a", "b", "c", "d", "e"]).raise_if_any()
    assert str(caught.value) == "a; b; c (and 2 more)"
