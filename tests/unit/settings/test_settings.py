"""The configuration file: complete in the example, strict, and clear about what is wrong."""

import re

import pytest

from alnnode.errors import SettingsError
from alnnode.records import CaptureForm
from alnnode.settings import (
    load,
    load_routes,
)


def refused(tmp_path, text):
    path = tmp_path / "alnnode.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(path)
    return str(caught.value)


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
    "section as a value": ("node = 3", ["node: must be a table with keys, such as [node]"]),
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
    "secret instead of its digest": (
        '[[web.tokens]]\nname = "a"\nsha256 = "hunter2"',
        ["web.tokens[1].sha256", "64 characters"],
    ),
    "URL of another scheme": (
        '[[destinations]]\nname = "a"\nkind = "stow"\nurl = "http://h"\noauth2 = { token_url = "ftp://u:hunter2@h" }',
        ["destinations[1].oauth2.token_url: must be an https:// URL"],
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
    with pytest.raises(SettingsError, match="no such file; `alnnode init` writes one"):
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


@pytest.mark.parametrize("value", ["[" * 5000, "{a=" * 3000, "9" * 5000])
def test_routes_that_no_parser_can_take_are_a_settings_error(value) -> None:
    with pytest.raises(SettingsError, match="not valid TOML: a value is nested too deeply, or too long"):
        load_routes(f"routes = {value}")
