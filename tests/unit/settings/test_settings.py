"""The configuration file: complete in the example, strict, and clear about what is wrong."""

import os
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from alnnode.errors import SettingsError
from alnnode.records import CaptureForm
from alnnode.settings import (
    ENV_PREFIX,
    ClientTls,
    DestinationCStore,
    DestinationStow,
    Internal,
    ListenerTls,
    Oidc,
    Route,
    ServerTls,
    Settings,
    WebToken,
    load,
)
from alnnode.settings.archives import ARCHIVES
from alnnode.settings.audit import AUDITS
from alnnode.settings.deliver import DESTINATIONS
from alnnode.settings.renamed import RENAMED

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"
LISTED = [name for name in Settings.model_fields if name != "internal"]
KINDS = {"destinations": DESTINATIONS, "archives": ARCHIVES, "audit": AUDITS}
TABLES = {"routes": [Route], "web.tokens": [WebToken], "web.oidc": [Oidc]} | {
    name: list(sections.values()) for name, sections in KINDS.items()
}
# The sections of the file, each with the classes that its keys belong to.
SECTIONS = {name: [Settings.model_fields[name].annotation] for name in LISTED if name not in TABLES} | TABLES


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


def refused(tmp_path, text):
    path = tmp_path / "alnnode.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(path)
    return str(caught.value)


def lines(prefix: str) -> dict[str, dict[str, str]]:
    """The lines ``key = value`` of the example that follow ``prefix``, by section and key."""
    found: dict[str, dict[str, str]] = {name: {} for name in SECTIONS}
    section = ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"#?\[{1,2}([\w.]+)\]{1,2}", line):
            section = header[1]
        elif key := re.match(rf"{prefix}(\w+) = ", line):
            assert key[1] not in found[section], f"{section}.{key[1]} stands there twice"
            found[section][key[1]] = line.removeprefix(prefix)
    return found


SET, DEFAULT, EXAMPLES = lines(""), lines("#"), lines("# Example: ")


def fields(section: str) -> dict[str, FieldInfo]:
    """The keys of a section; of a key that is there for several kinds, that of the first, which is the default."""
    return {name: field for model in reversed(SECTIONS[section]) for name, field in model.model_fields.items()}


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


def test_settings_are_frozen():
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.node = None
    with pytest.raises(ValueError, match="frozen"):
        settings.listener.port = 1


DESTINATION = '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 104\n'
DICOM_ARCHIVE = '[[archives]]\nname = "a"\nkind = "dicom"\nae_title = "A"\nhost = "h"\nport = 104\n'
TLS = 'certificate = "c"\nprivate_key = "k"\n'
WRONG = {
    "mutual TLS without an authority": (f"[listener.tls]\n{TLS}", ["listener.tls:", "mutual TLS needs ca"]),
    "names of peers that show no certificate": (
        f'[listener.tls]\n{TLS}mutual = false\npeer_names = ["ct1"]',
        ["listener.tls:", "peer_names needs mutual"],
    ),
    "half a pair": (
        f'{DESTINATION}[destinations.tls]\nca = "a"\ncertificate = "c"\n',
        ["destinations[1].tls:", "give both or none"],
    ),
    "TLS without https": (
        '[[destinations]]\nname = "a"\nkind = "stow"\nurl = "http://h"\ntls = { ca = "a" }\n',
        ["destinations[1]:", "https://"],
    ),
    "misspelt key": ("[listener]\nprot = 104", ["listener.prot: no such key", 'do you mean "port"?', "config.example.toml"]),
    "misspelt section": ("[lisener]\nport = 104", ["lisener: no such key", 'do you mean "listener"?']),
    "strange key": ("[node]\nxyzzy = 1", ["node.xyzzy: no such key", "remove it"]),
    "misspelt key of a table": (DESTINATION + "tiemout = 3", ["destinations[1].tiemout", 'do you mean "timeout"?']),
    "port": ("[listener]\nport = 70000", ["listener.port", "less than or equal to 65535", "70000"]),
    "kind of value": ('[listener]\nport = "many"', ["listener.port", "integer", "'many'"]),
    "section as a value": ("node = 3", ["node", "3"]),
    "AE title": ('[node]\nae_title = "A_TITLE_THAT_IS_TOO_LONG"', ["node.ae_title", "1 to 16", "shorten"]),
    "AE title of a caller": ('[listener]\ncalling_ae_titles = ["OK", "back\\\\slash"]', ["calling_ae_titles[2]", "backslash"]),
    "network": ('[listener]\naddresses = ["10.0.0.0/99"]', ["listener.addresses[1]"]),
    "choice": ('[analysis]\ndevice = "gpu"', ["analysis.device", "'auto', 'cpu' or 'cuda'", "'gpu'"]),
    "narrow window": ("[analysis]\nwindow = [40, 0.5]", ["analysis.window[2]", "greater than or equal to 1"]),
    "not a number": ("[completion]\nquiet = -1", ["completion.quiet", "greater than 0", "-1"]),
    "window of three": ("[analysis]\nwindow = [1, 2, 3]", ["analysis.window", "at most 2 items"]),
    "pattern": ('[[routes]]\nname = "r"\nkernel = "("', ["routes[1].kernel", "not a regular expression", "escape"]),
    "bounds": (
        '[[routes]]\nname = "r"\nslice_thickness = [3, 1]',
        ["routes[1]", "slice_thickness has its least value above its greatest", "swap"],
    ),
    "nameless route": ('[[routes]]\nbody_parts = ["CHEST"]', ["routes[1].name", "must be given"]),
    "incomplete C-STORE": (
        '[[destinations]]\nname = "a"',
        [
            'destinations[1].ae_title: must be given for kind = "cstore"; add an Application Entity title',
            "destinations[1].host: must be given",
            "destinations[1].port: must be given",
        ],
    ),
    "incomplete STOW": (
        '[[destinations]]\nname = "a"\nkind = "stow"',
        ['destinations[1].url: must be given for kind = "stow"; add the root of the DICOMweb service'],
    ),
    "unknown kind": (
        '[[destinations]]\nname = "a"\nkind = "ftp"\nurl = "http://u:hunter2@h"',
        ['destinations[1].kind: must be "cstore" or "stow"', "'ftp'"],
    ),
    "kind as a number": ("[audit]\nkind = 3", ["audit.kind: must be", "3"]),
    "key of the other kind": (
        DESTINATION + 'url = "http://h"',
        ['destinations[1].url: is for kind = "stow", and this table is of kind "cstore"; remove it, or change kind'],
    ),
    "commitment over DICOMweb": (
        '[[destinations]]\nname = "a"\nkind = "stow"\nurl = "http://h"\ncommitment = "wait"',
        ['destinations[1].commitment: is for kind = "cstore"'],
    ),
    "misspelt key of a kind": (DICOM_ARCHIVE + "prot = 3", ["archives[1].prot: no such key", 'do you mean "port"?']),
    "misspelt key of a nested table": (
        f'{DESTINATION}[destinations.tls]\nca = "a"\nserver_nam = "c"\n',
        ["destinations[1].tls.server_nam: no such key", 'do you mean "server_name"?'],
    ),
    "key of three kinds": (
        '[audit]\nhost = "h"',
        ['audit.host: is for kind = "tls" or "udp", and this table is of kind "off"'],
    ),
    "audit without an authority": (
        '[audit]\nkind = "tls"\nhost = "h"',
        ['audit.tls: must be given for kind = "tls"; add { ca = … }, the authority that signed'],
    ),
    "audit without a file": ('[audit]\nkind = "file"', ["audit.file: must be given", "the file that messages are appended to"]),
    "incomplete archive": (
        '[[archives]]\nname = "a"\nkind = "dicom"',
        ["archives[1].ae_title: must be given", "archives[1].host: must be given", "archives[1].port: must be given"],
    ),
    "archive without url": ('[[archives]]\nname = "a"\n', ["archives[1].url: must be given"]),
    "archive of two kinds": (DICOM_ARCHIVE + 'url = "http://h/d"\n', ['archives[1].url: is for kind = "dicomweb"']),
    "archive of the other kind": (
        '[[archives]]\nname = "a"\nurl = "http://h/d"\nport = 104\n',
        ['archives[1].port: is for kind = "dicom"'],
    ),
    "archives of one title": (
        DICOM_ARCHIVE + DICOM_ARCHIVE.replace('"a"', '"b"'),
        ["two archives share an ae_title"],
    ),
    "moved to a title that is not listened to": (
        f'[listener]\ncalled_ae_titles = ["OTHER"]\n{DICOM_ARCHIVE}',
        ["send to [node] ae_title", "called_ae_titles"],
    ),
    "same names": (DESTINATION * 2, ["two destinations share the name 'a'", "rename"]),
    "database": ('[database]\nurl = "mysql://u:hunter2@h/d"', ["database.url", "sqlite:///", "empty means SQLite"]),
    "database as a list": ('[database]\nurl = ["hunter2"]', ["database.url", "string"]),
    "secret instead of its digest": ('[[web.tokens]]\nname = "a"\nsha256 = "hunter2"', ["web.tokens[1].sha256", "pattern"]),
    "URL of another scheme": (
        '[[destinations]]\nname = "a"\nkind = "stow"\nurl = "http://h"\noauth2 = { token_url = "ftp://u:hunter2@h" }',
        ["destinations[1].oauth2.token_url", "pattern"],
    ),
    "no TOML": ("[node\n", ["not valid TOML", "line 1"]),
}


@pytest.mark.parametrize(("text", "parts"), WRONG.values(), ids=WRONG)
def test_message_names_key_reason_and_fix(tmp_path, text, parts):
    message = refused(tmp_path, text)
    assert [part for part in parts if part not in message] == [], message
    assert "hunter2" not in message
    assert str(tmp_path) in message


def test_all_mistakes_are_told_at_once(tmp_path):
    message = refused(tmp_path, '[node]\nae_title = ""\n[listener]\nport = 0')
    assert "node.ae_title" in message
    assert "listener.port" in message


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(SettingsError, match=r"no such file; copy config\.example\.toml"):
        load(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes("# Universitätsklinik".encode("latin-1"))
    with pytest.raises(SettingsError, match="UTF-8"):
        load(tmp_path / "latin.toml")


def test_environment_wins_over_the_file(tmp_path, monkeypatch):
    path = tmp_path / "alnnode.toml"
    path.write_text('[listener]\nport = 104\nhost = "0.0.0.0"\n', encoding="utf-8")
    monkeypatch.setenv("ALNNODE__LISTENER__PORT", "4242")
    monkeypatch.setenv("ALNNODE__LISTENER__CALLING_AE_TITLES", '["CT1", "CT2"]')
    monkeypatch.setenv("ALNNODE__ROUTES", '[{"name": "thin", "slice_thickness": [0, 2]}]')
    settings = load(path)
    assert (settings.listener.port, settings.listener.host) == (4242, "0.0.0.0")
    assert settings.listener.calling_ae_titles == ("CT1", "CT2")
    assert [route.slice_thickness for route in settings.routes] == [(0, 2)]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ALNNODE__LISENER__PORT", "104", "no such section"),
        ("ALNNODE__LISTENER__PROT", "104", "no such key"),
        ("ALNNODE__LISTENER__PORT", "many", "listener.port"),
        ("ALNNODE__ROUTES", "thin", "written as JSON"),
    ],
)
def test_wrong_environment(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        load()


def test_derived_addresses(tmp_path):
    path = tmp_path / "alnnode.toml"
    path.write_text(f"[node]\ndata_dir = '{tmp_path}'\nae_title = ' NODE '\n", encoding="utf-8")
    settings = load(path)
    assert settings.node.ae_title == "NODE"
    assert settings.database_url == f"sqlite:///{tmp_path}/alnnode.db"
    assert settings.broker_url == f"redis+socket://{tmp_path}/redis/redis.sock"
    assert settings.called_ae_titles == ("NODE",)
    assert settings.calling_ae_titles == ()


def test_digest_follows_what_changes_a_result(monkeypatch):
    settings = load()

    def digest(section: str, **values: object) -> str:
        changed = getattr(settings, section).model_copy(update=values)
        return settings.model_copy(update={section: changed}).result_digest

    assert re.fullmatch(r"[0-9a-f]{64}", settings.result_digest)
    assert digest("analysis", device="cpu", threads=4) == settings.result_digest
    assert digest("analysis", min_short_axis_mm=6) != settings.result_digest
    assert digest("report", captures=CaptureForm.MULTIFRAME) != settings.result_digest
    # What is written in the objects.
    assert digest("node", ae_title="OTHER") != settings.result_digest
    assert digest("node", time_zone="Asia/Tokyo") != settings.result_digest
    present = settings.result_digest
    monkeypatch.setattr("alnnode.settings.root.__version__", "99.0")
    assert settings.result_digest != present
    assert digest("report", kinds=("seg", "ko")) == digest("report", kinds=("ko", "seg")) != settings.result_digest


# Old keys that are in no table of one kind, or whose table needs more keys.
SURROUNDINGS = {"destinations": DESTINATION, "routes": '[[routes]]\nname = "r"\n'}


@pytest.mark.parametrize("key", RENAMED)
def test_a_renamed_or_removed_key_names_the_new_one_or_says_what_holds_now(tmp_path, key):
    section, name = key.split(".")
    header = SURROUNDINGS.get(section, f"[{section}]\n")
    place = f"{section}[1].{name}" if section in SURROUNDINGS else key
    message = refused(tmp_path, f"{header}{name} = 1\n")
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


def test_the_environment_sets_a_section_of_several_kinds(monkeypatch):
    monkeypatch.setenv("ALNNODE__AUDIT__KIND", "udp")
    monkeypatch.setenv("ALNNODE__AUDIT__HOST", "syslog")
    audit = load().audit
    assert (audit.kind, audit.host, audit.port) == ("udp", "syslog", 6514)


def test_the_digest_of_results_survives_a_rename_of_keys(monkeypatch, tmp_path):
    """Results of before keep their UIDs: these digests were computed with window_center, window_width and the rest of version 0.1.0."""
    monkeypatch.setattr("alnnode.settings.root.__version__", "0.1.0")
    assert load().result_digest == "6e7c4fd539a1607bd744dc06a2da059b22e0db81c445a72beda3afd379b29982"
    path = tmp_path / "config.toml"
    path.write_text(
        '[analysis]\nwindow = [45.5, 350]\nmax_nodes = 7\ndetector_threshold = 0.25\n[report]\nkinds = ["seg", "ko"]\n'
    )
    assert load(path).result_digest == "79581581680594303b2d35aed89eb4baea72b78311c4524ac0ec74d2e2555dc2"
