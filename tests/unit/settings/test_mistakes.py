"""Mistakes in settings files that a parser accepts or names by its own types, and what the administrator reads instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
from pydantic import ValidationError

from alnnode.errors import SettingsError
from alnnode.settings import load
from alnnode.settings.section import Section

if TYPE_CHECKING:
    from pathlib import Path

DESTINATION = '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 104\n'
POSTGRES, REDIS = '[database]\nurl = "postgresql+psycopg://u:{}"', '[broker]\nurl = "redis://:{}"'
PARSER_WORDS = ("tuple", "dictionary", "instance of", "pattern", "lax-or-strict")
MISTAKES = {
    "one table for a list": (DESTINATION.replace("[[", "[").replace("]]", "]"), "destinations: must be a list of tables; begin each of them with [[destinations]]"),
    "one token": ('[web.tokens]\nname = "hunter2"', "web.tokens: must be a list of tables; begin each of them with [[web.tokens]]"),
    "list of tables for one": ('[[node]]\nae_title = "A"', "node: must be a table with keys, such as [node]"),
    "text for a table": ('[notify]\nwebhook = "https://chat/hunter2"', "notify.webhook: must be a table with keys"),
    "text for a list of tables": ('destinations = ["hunter2"]', "destinations[1]: must be a table with keys"),
    "text for a list": ('[[routes]]\nname = "r"\nmodalities = "CT"', 'routes[1].modalities: must be a list, such as ["A", "B"]'),
    "name with a space": (DESTINATION.replace('name = "a"', 'name = "My PACS"'), 'destinations[1].name: must be 1 to 32 letters, digits, "_" and "-"'),
    "digest in capitals": (f'[[web.tokens]]\nname = "a"\nsha256 = "{"A" * 64}"', "web.tokens[1].sha256: must be the sha256 that `alnnode token` prints"),
    "mail address": ('[notify]\nmail = { host = "h", sender = "node", recipients = ["a@b"] }', "notify.mail.sender: must be a mail address"),
    "workitem code": ('[worklist]\ncodes = ["110004"]', 'worklist.codes[1]: must be "scheme:value", such as "DCM:110004"'),
    "slash at the end": ('[[archives]]\nname = "a"\nurl = "http://h/d/"', "without / at its end"),
    "host name for a network": ('[listener]\naddresses = ["pacs.example.org"]', "listener.addresses[1]: 'pacs.example.org' is no address and no network"),
    "address and length": ('[listener]\naddresses = ["10.2.3.4/8"]', 'listener.addresses[1]: \'10.2.3.4/8\' is an address and the length of a network; write "10.0.0.0/8"'),
    "number for a network": ("[web]\ntrusted_proxies = [10]", "web.trusted_proxies[1]: 10 is no address and no network"),
    "port in the host": (DESTINATION.replace('"h"', '"pacs:104"'), "destinations[1].host: give a host name or address alone"),
    "URL for the host": (DESTINATION.replace('"h"', '"http://pacs"'), "destinations[1].host: give a host name or address alone"),
    "line break in the host": (DESTINATION.replace('"h"', '"pacs\\n"'), "destinations[1].host: give a host name or address alone"),
    "home directory": ('[node]\ndata_dir = "~/node"', 'node.data_dir: name a folder by its path: "~" is not replaced'),
    "no data directory": ('[node]\ndata_dir = ""', "node.data_dir: name a folder by its path"),
    "endless wait": ("[completion]\nquiet = inf", "completion.quiet: Input should be a finite number"),
    "no number": ("[analysis]\nwindow = [nan, 400]", "analysis.window[1]: Input should be a finite number"),
    "true for a port": ("[listener]\nport = true", "listener.port: must be a number, not true"),
    "false for a number": (DESTINATION + "timeout = false", "destinations[1].timeout: must be a number, not false"),
    "true in a list of numbers": ("[analysis]\nwindow = [true, 400]", "analysis.window: must be numbers, not true or false"),
    "milliseconds": (DESTINATION + "timeout = 30000000", "destinations[1].timeout: Input should be less than or equal to 604800"),
    "days for ever": ("[retention]\ndelivered_days = 1e300", "retention.delivered_days: Input should be less than or equal to 36500"),
    "one port for both": ("[listener]\nport = 8124", "listener.port and web.port are both 8124; change one"),
    "section in capitals": ('[Node]\nae_title = "A"', 'Node: no such key; do you mean "node"?'),
    "name for a port of PostgreSQL": (POSTGRES.format("hunter2@h:port/d"), "database.url: host or port is not one"),
    "port of PostgreSQL": (POSTGRES.format("hunter2@h:99999/d"), "database.url: host or port is not one"),
    "no file of SQLite": ('[database]\nurl = "sqlite:///:memory:"', "database.url: name a file"),
    "port of Redis": (REDIS.format("hunter2@h:99999/0"), "broker.url: host, port or number of the database is not one"),
    "number of a Redis database": (REDIS.format("hunter2@h:6379/zero"), "broker.url: host, port or number of the database is not one"),
    "password of Redis that is not escaped": (REDIS.format("hunter2#@h:6379/0"), "write characters such as @, #, / and % of a password as %40"),
    "nested without end": (f"a = {'[' * 20000}{']' * 20000}", "too many nested lists or tables"),
}  # fmt: skip


def refused(folder: Path, text: str) -> str:
    (folder / "c.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as error:
        load(folder / "c.toml")
    return str(error.value)


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_in_the_words_of_the_file_and_shows_no_secret(tmp_path, text, words) -> None:
    said = refused(tmp_path, text)
    assert words in said
    assert not any(word in said for word in PARSER_WORDS), said
    assert "hunter2" not in said
    assert f"{tmp_path}/c.toml" in said


def sections(kind=Section):
    for one in kind.__subclasses__():
        yield one
        yield from sections(one)


def numbers(annotation) -> int:
    """The number of places for integers and numbers in an annotation."""
    return (annotation in {int, float}) + sum(map(numbers, get_args(annotation)))


NUMBERS = [
    (section, name) for section in sections() for name, field in section.model_fields.items() if numbers(field.annotation)
]


@pytest.mark.parametrize(("section", "name"), NUMBERS, ids=lambda one: getattr(one, "__name__", one))
def test_true_is_no_number_for_any_key(section, name) -> None:
    count = numbers(section.model_fields[name].annotation)
    with pytest.raises(ValidationError) as error:
        section(**{name: True if count == 1 else [True] * count})
    assert [one["loc"] for one in error.value.errors() if "not true" in one["msg"]] == [(name,)]


def test_a_wrong_item_is_not_told_a_second_time_as_an_empty_list(tmp_path) -> None:
    said = refused(tmp_path, f'[[web.tokens]]\nname = "a"\nroles = ["boss"]\nsha256 = "{"a" * 64}"')
    assert said.count("web.tokens[1].roles") == 1, said


def test_a_byte_order_mark_is_no_mistake(tmp_path) -> None:
    (tmp_path / "c.toml").write_text('[node]\nae_title = "NOTEPAD"\r\n', encoding="utf-8-sig")
    assert load(tmp_path / "c.toml").node.ae_title == "NOTEPAD"


@pytest.mark.parametrize("host", ["pacs", "pacs.example.org", "10.1.2.3", "::1", "fe80::1%eth0", "pacs_1"])
def test_hosts_that_are_used(tmp_path, host) -> None:
    (tmp_path / "c.toml").write_text(DESTINATION.replace('"h"', f'"{host}"'), encoding="utf-8")
    assert load(tmp_path / "c.toml").destinations[0].host == host


@pytest.mark.parametrize(
    "text",
    [
        POSTGRES.format("p%40w@h:5432/d"), POSTGRES.format("pw@/d?host=h1:5432&host=h2:5433"), '[database]\nurl = "postgresql+psycopg:///d"',
        REDIS.format("p%23w@h:6379/15"), '[broker]\nurl = "redis://h"', '[broker]\nurl = "redis+socket:///run/redis.sock"',
        '[broker]\nurl = "rediss://:pw@h:6379/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem"', '[listener]\naddresses = ["10.2.3.4", "fd00::/8"]',
    ],
)  # fmt: skip
def test_values_that_are_used(tmp_path, text) -> None:
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    load(tmp_path / "c.toml")
