"""`alnnode check` looks at every file that the node needs at its start: certificates, keys and secrets."""

import os
from pathlib import Path

import pytest
from certificates import Authority
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key

from alnnode.cli import check as checks
from alnnode.db.schema import has_no_database
from alnnode.errors import ServiceError
from alnnode.settings import load
from alnnode.tls import check_pair


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ports", "_database", "_broker", "_bundle", "_device", "_hints"):
        monkeypatch.setattr(f"alnnode.cli.check.{name}", lambda *_: "")
    return tmp_path


def check(text: str) -> dict[str, checks.Result]:
    Path("config.toml").write_text(f'[node]\ndata_dir = "data"\n{text}', encoding="utf-8")
    return {one.what: one for one in checks.run(load(Path("config.toml")), None)}


def encrypted(pair) -> Path:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    file = Path("encrypted.key")
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")))
    return file


def test_the_certificate_of_the_http_service(folder) -> None:
    ours = Authority(folder / "ours")
    one, other, ended = ours.issue("one"), ours.issue("other"), ours.issue("late", ended=True)

    def found(certificate: Path, key: Path) -> checks.Result:
        return check(f'[web]\ntls = {{ certificate = "{certificate}", private_key = "{key}" }}\n')[
            f"certificate {certificate.name}"
        ]

    assert found(one.certificate, one.key).passed
    for pair, words in (
        ((one.certificate, other.key), "key values mismatch"),
        ((one.key, one.certificate), "are they exchanged?"),
        ((one.certificate, encrypted(one)), "is encrypted; store the key without a password"),
        ((one.certificate, folder / "no.key"), "No such file"),
        ((ended.certificate, ended.key), "expired on"),
    ):
        result = found(*pair)
        assert (result.passed, words in result.found) == (False, True), result
        assert result.advice == "renew or correct the files; then run `alnnode reload`"


def test_a_key_with_a_password_asks_nobody(folder) -> None:
    pair = Authority(folder / "ours").issue("one")
    with pytest.raises(ServiceError, match="is encrypted"):
        check_pair(pair.certificate, encrypted(pair))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[[web.tokens]]\nname = "VIEWER"\nfile = "secret"\n', "secret of web token VIEWER"),
        ('[[archives]]\nname = "VNA"\nurl = "http://h/d"\ntoken_file = "secret"\n', "secret of archive VNA"),
        ('[notify]\nwebhook = { url = "https://h/x", secret_file = "secret" }\n', "secret of webhook"),
        (
            '[notify]\nmail = { host = "h", sender = "a@b", recipients = ["a@b"], user = "u", password_file = "secret" }\n',
            "secret of mail",
        ),
    ],
)
def test_files_of_secrets(text, what) -> None:
    missing = check(text)[what]
    assert (missing.passed, missing.found) == (False, "cannot read secret (No such file or directory)")
    Path("secret").write_text("\n", encoding="utf-8")
    assert check(text)[what].found == "secret is empty"
    Path("secret").write_text("hunter2", encoding="utf-8")
    present = check(text)[what]
    assert present.passed
    assert "hunter2" not in f"{present}"


def test_a_folder_that_this_user_may_not_enter(folder, monkeypatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    settings = load()
    settings = settings.model_copy(update={"node": settings.node.model_copy(update={"data_dir": folder / "closed" / "data"})})
    (folder / "closed").mkdir()
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **more: forbidden() if "closed/" in str(path) else stat(path, **more))
    monkeypatch.setattr("tempfile.TemporaryDirectory", forbidden)
    result = checks.disk(settings)
    assert (result.passed, result.found) == (False, f"cannot create {folder}/closed/data (Permission denied)")
    assert f"user {os.geteuid()}" in result.advice
    assert not has_no_database(settings.database_url), "nobody knows, and the attempt to open it says why"
