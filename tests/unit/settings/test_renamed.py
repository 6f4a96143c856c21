"""A key of an earlier version gives an error that says what to write instead."""

import re

import pytest
from example_settings import fields

from alnnode.errors import SettingsError
from alnnode.settings import ClientTls, Internal, load
from alnnode.settings.renamed import RENAMED

DESTINATION = '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 104\n'
# Old keys that are in no table of one kind, or whose table needs more keys.
SURROUNDINGS = {"destinations": DESTINATION, "routes": '[[routes]]\nname = "r"\n'}


@pytest.mark.parametrize("key", RENAMED)
def test_a_renamed_or_removed_key_names_the_new_one_or_says_what_holds_now(tmp_path, key):
    section, name = key.split(".")
    header = SURROUNDINGS.get(section, f"[{section}]\n")
    place = f"{section}[1].{name}" if section in SURROUNDINGS else key
    path = tmp_path / "config.toml"
    path.write_text(f"{header}{name} = 1\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(path)
    message = str(caught.value)
    assert f"{place}: {RENAMED[key]}" in message
    assert re.search(r": (is now [a-z_.]+|can no longer be set; remove it\. [A-Z].*\.$)", message, re.MULTILINE)


def test_the_environment_names_new_keys_too(monkeypatch):
    monkeypatch.setenv("ALNNODE__LISTENER__ACSE_TIMEOUT", "30")
    with pytest.raises(SettingsError, match=r"listener\.acse_timeout: is now listener\.timeout"):
        load()


@pytest.mark.parametrize("key", RENAMED)
def test_a_renamed_key_points_to_a_key_that_there_is(key):
    section, name = key.split(".")
    assert name not in fields(section)
    for new in re.findall(r"is now ([a-z_.]+)", RENAMED[key]):
        section, name, *rest = new.split(".")
        assert name in fields(section)
        assert set(rest) <= ClientTls.model_fields.keys(), "of the tables, only tls has keys with an old name"


def test_a_constant_that_an_error_names_is_the_one_in_use():
    internal = Internal()
    for key, words in {
        "listener.max_peer_rate": f"{internal.connection_rate:.0f} connections a second",
        "destinations.retry_first": f"{internal.retry_first:.0f} s",
        "destinations.retry_ceiling": f"{internal.retry_longest / 60:.0f} minutes",
        "destinations.commitment_timeout": "an hour" if internal.commitment_timeout == 3600 else "?",
        "destinations.commitment_attempts": f"{internal.commitment_attempts} unanswered",
        "broker.max_attempts": f"{internal.analysis_attempts} analyses",
        "web.max_request_mb": f"{internal.web_request_mb >> 10} GiB",
        "web.header_timeout": f"{internal.web_header_timeout:.0f} s",
        "web.body_timeout": f"{internal.web_body_timeout:.0f} s",
        "web.max_rate": f"{internal.web_request_rate:.0f} requests a second",
        "worklist.fetch_attempts": f"{internal.fetch_attempts} attempts",
        "audit.max_waiting": f"{internal.audit_messages} messages",
    }.items():
        assert words in RENAMED[key], key
