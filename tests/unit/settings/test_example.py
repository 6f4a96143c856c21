"""config.example.toml is complete, says the defaults, and begins with what every site sets."""

import re
import tomllib
from itertools import pairwise

import pytest
from example_settings import EXAMPLE, SECTIONS, fields, lines
from pydantic import TypeAdapter

from alnnode.settings import ClientTls, DestinationCStore, DestinationStow, ListenerTls, Oidc, Route, ServerTls, Settings, load
from alnnode.settings.archives import ARCHIVES

SET, DEFAULT, EXAMPLES = lines(""), lines("#"), lines("# Example: ")


@pytest.mark.parametrize("section", SECTIONS)
def test_example_names_every_key_and_no_other(section):
    expected = set(fields(section)) - ({"tokens", "oidc"} if section == "web" else set())
    assert SET[section].keys() | DEFAULT[section].keys() | EXAMPLES[section].keys() == expected


@pytest.mark.parametrize("section", SECTIONS)
def test_example_says_the_defaults(section):
    given = tomllib.loads("\n".join([*SET[section].values(), *DEFAULT[section].values()]))
    known = fields(section)
    if section == "routes":
        assert (Route(**given),) == Settings().routes
        del given["name"]
    for key, value in given.items():
        if key in SET[section] and known[key].is_required():
            continue  # the address of a destination
        default = known[key].get_default(call_default_factory=True)
        assert TypeAdapter(known[key].rebuild_annotation()).validate_python(value) == default, key


@pytest.mark.parametrize("section", SECTIONS)
def test_an_example_stands_where_the_default_does_not_explain_the_key(section):
    for key in EXAMPLES[section]:
        field = fields(section)[key]
        needs_one = field.is_required() or field.get_default(call_default_factory=True) in (None, "", (), {})
        assert needs_one or (section, key) == ("audit", "port"), key


def test_example_begins_with_the_ten_keys_that_a_site_sets():
    keys = [(section, key) for section, values in SET.items() for key in values]
    assert sorted(keys) == sorted(
        [("node", key) for key in ("ae_title", "data_dir")]
        + [("listener", key) for key in ("host", "port", "addresses")]
        + [("destinations", key) for key in ("name", "ae_title", "host", "port")]
    ), "the tenth is the token of the HTTP service, which a node on loopback does not need"
    first, rest = EXAMPLE.read_text(encoding="utf-8").split("Part 2: everything else", 1)
    assert EXAMPLES["web.tokens"]["sha256"] in first
    assert [line for section in SET.values() for line in section.values() if f"\n{line}" in rest] == []


def test_example_works_as_it_stands():
    settings = load(EXAMPLE)
    default = Settings()
    (destination,) = settings.destinations
    assert settings.model_copy(update={"destinations": ()}) == default
    assert destination == DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=11113)


def test_every_example_of_a_table_is_one():
    given = {section: tomllib.loads("\n".join(values.values())) for section, values in EXAMPLES.items()}
    assert set(ListenerTls(**given["listener"]["tls"]).model_fields_set) == set(ListenerTls.model_fields)
    assert set(ServerTls(**given["web"]["tls"]).model_fields_set) == set(ServerTls.model_fields)
    assert set(ClientTls(**given["destinations"]["tls"]).model_fields_set) == set(ClientTls.model_fields)
    DestinationStow(name="a", **{key: given["destinations"][key] for key in ("url", "oauth2")})
    Settings(
        listener={"users": [{"name": "CT1", "sha256": "0" * 64}]}, commitment={"requesters": given["commitment"]["requesters"]}
    )
    Oidc(**given["web.oidc"])
    for kind, section in ARCHIVES.items():
        section(
            **{key: value for key, value in given["archives"].items() if key in section.model_fields and key != "tls"},
            kind=kind,
        )


def test_every_key_of_the_example_follows_a_comment():
    """A block of keys starts with its comment."""
    explained_together = {"host", "port", "audience"}
    bare = [
        line
        for before, line in pairwise(EXAMPLE.read_text(encoding="utf-8").splitlines())
        if (key := re.match(r"(?:#|# Example: )?(\w+) = ", line))
        and not before.startswith("# ")
        and key[1] not in explained_together
    ]
    assert bare == []
