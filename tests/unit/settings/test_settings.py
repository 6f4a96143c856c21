"""The configuration file: complete in the example, strict, and clear about what is wrong."""

import os
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from alnnode.errors import SettingsError
from alnnode.records import CaptureForm
from alnnode.settings import (
    ENV_PREFIX,
    Archive,
    Destination,
    DestinationTls,
    ListenerTls,
    Oidc,
    Route,
    Settings,
    WebToken,
    load,
)

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"
TABLES = {"destinations": Destination, "routes": Route, "web.tokens": WebToken, "web.oidc": Oidc, "archives": Archive}
SECTIONS = {name: field.annotation for name, field in Settings.model_fields.items() if name not in TABLES}


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


def test_example_loads_and_says_the_defaults():
    settings = load(EXAMPLE)
    default = Settings()
    for name in SECTIONS:
        assert getattr(settings, name) == getattr(default, name), name
    assert settings.routes == default.routes
    assert [d.kind for d in settings.destinations] == ["cstore", "stow"]
    for field in ("objects", "timeout", "retry_first", "retry_ceiling", "retry_attempts"):
        assert getattr(settings.destinations[0], field) == Destination.model_fields[field].default, field


def example_keys():
    """{section: keys}, those that stand commented out included."""
    keys = {}
    section = ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"(?:# )?\[{1,2}([\w.]+)\]{1,2}", line):
            section = header[1]
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            keys.setdefault(section, set()).add(key[1])
    return keys


def test_example_names_every_field_and_no_other():
    expected = {name: set(model.model_fields) for name, model in {**SECTIONS, **TABLES}.items()}
    expected["web"] -= {"tokens", "oidc"}
    assert example_keys() == expected


def test_every_key_of_the_example_follows_a_comment():
    """A block of keys starts with its comment; the second destination repeats what the first explained."""
    text = EXAMPLE.read_text(encoding="utf-8")
    text = re.sub(r'\[\[destinations\]\]\nname = "archive"\nkind = "stow"\n', "", text).replace('objects = ["sr"]\n', "")
    lines = text.splitlines()
    explained_together = {"host", "port", "retry_ceiling", "window_width", "max_slice_thickness"}
    bare = [
        line
        for before, line in pairwise(lines)
        if re.match(r"\w+ = ", line) and not before.startswith("#") and line.split(" = ")[0] not in explained_together
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
    "one address takes every place": (
        "[listener]\nmax_associations = 25",
        ["listener: ", "max_peer_connections must be below max_associations", "raise max_associations"],
    ),
    "one address takes every place of the web service": (
        "[web]\nmax_peer_connections = 100",
        ["web: ", "max_peer_connections must be below max_connections", "raise max_connections"],
    ),
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
    "narrow window": ("[analysis]\nwindow_width = 0.5", ["analysis.window_width", "greater than or equal to 1"]),
    "not a number": ("[completion]\nquiet = -1", ["completion.quiet", "greater than 0", "-1"]),
    "pattern": ('[[routes]]\nname = "r"\nkernel = "("', ["routes[1].kernel", "not a regular expression", "escape"]),
    "bounds": (
        '[[routes]]\nname = "r"\nmin_slice_thickness = 3\nmax_slice_thickness = 1',
        ["routes[1]", "min_slice_thickness is above max_slice_thickness", "swap"],
    ),
    "nameless route": ('[[routes]]\nbody_parts = ["CHEST"]', ["routes[1].name", "must be given"]),
    "incomplete C-STORE": ('[[destinations]]\nname = "a"', ["destinations[1]", "needs ae_title, host and port"]),
    "incomplete STOW": ('[[destinations]]\nname = "a"\nkind = "stow"', ["destinations[1]", "needs url"]),
    "incomplete archive": ('[[archives]]\nname = "a"\nkind = "dicom"', ["archives[1]", "needs ae_title, host and port"]),
    "archive without url": ('[[archives]]\nname = "a"\n', ["archives[1]", "needs url"]),
    "archive of two kinds": (DICOM_ARCHIVE + 'url = "http://h/d"\n', ["archives[1]", "url and token_file are for"]),
    "archive of the other kind": (
        '[[archives]]\nname = "a"\nurl = "http://h/d"\nport = 104\n',
        ["archives[1]", "ae_title, host and port are for"],
    ),
    "archives of one title": (
        DICOM_ARCHIVE + DICOM_ARCHIVE.replace('"a"', '"b"'),
        ["two archives share an ae_title"],
    ),
    "moved to a title that is not listened to": (
        f'[listener]\ncalled_ae_titles = ["OTHER"]\n{DICOM_ARCHIVE}',
        ["send to [node] ae_title", "called_ae_titles"],
    ),
    "ceiling": (
        DESTINATION + "retry_first = 9\nretry_ceiling = 5",
        ["destinations[1]", "retry_ceiling is below retry_first", "raise"],
    ),
    "same names": (DESTINATION * 2, ["two destinations share the name 'a'", "rename"]),
    "database": ('[database]\nurl = "mysql://u:hunter2@h/d"', ["database.url", "sqlite:///", "empty means SQLite"]),
    "database as a list": ('[database]\nurl = ["hunter2"]', ["database.url", "string"]),
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
    monkeypatch.setenv("ALNNODE__ROUTES", '[{"name": "thin", "max_slice_thickness": 2}]')
    settings = load(path)
    assert (settings.listener.port, settings.listener.host) == (4242, "0.0.0.0")
    assert settings.listener.calling_ae_titles == ("CT1", "CT2")
    assert [route.max_slice_thickness for route in settings.routes] == [2]


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


def test_the_tables_that_the_example_leaves_out_name_every_field():
    tables = re.findall(r"^# (tls = \{.*\})$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    given = [tomllib.loads(table)["tls"] for table in tables]
    assert [set(ListenerTls.model_fields), set(DestinationTls.model_fields)] == [set(table) for table in given[:2]]
    assert [set(table) for table in given[2:]] == [{"ca"}], "of an archive: the rest is as for a destination"
    ListenerTls(**given[0])
    DestinationTls(**given[1])


def test_example_is_plain_toml():
    assert set(tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))) == set(Settings.model_fields)
