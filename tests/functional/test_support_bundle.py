"""The support bundle holds what a report of a fault needs, and neither patients nor secrets; check gives hints."""

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update
from stages import Stages
from typer.testing import CliRunner

from alnnode.cli import check
from alnnode.cli.app import app
from alnnode.cli.hints import hints
from alnnode.cli.support_bundle import without_secrets
from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.db.tables import Job, Series
from alnnode.records import JobState
from alnnode.settings import Notify, load

# Planted in every place where a patient's data or a secret can be.
PATIENT, SECRET, DIGEST = "DOE^JANE", "hunter2-s3cret", "ab" * 32
CONFIG = """[node]
data_dir = "{folder}/data"
[listener]
port = 1
users = [{{ name = "CT1", sha256 = "{DIGEST}" }}]
[[web.tokens]]
name = "VIEWER"
sha256 = "{DIGEST}"
[[routes]]
name = "r"
description = "{PATIENT}"
[[destinations]]
name = "pacs"
kind = "stow"
url = "http://user:{SECRET}@127.0.0.1:1/dicom-web?key={SECRET}"
timeout = 1
token_file = "{folder}/token"
[broker]
url = "redis://:{SECRET}@127.0.0.1:1/0"
[notify]
webhook = {{ url = "http://127.0.0.1:1/hooks/{SECRET}", secret_file = "{folder}/token" }}
"""


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(check, "_bundle", lambda _: "a bundle")  # they load torch, which has no part in this
    monkeypatch.setattr(check, "_device", lambda _: "a device")
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(folder=tmp_path, DIGEST=DIGEST, PATIENT=PATIENT, SECRET=SECRET))
    (tmp_path / "token").write_text(SECRET)
    settings = load(file)
    schema.migrate(settings.database_url)
    engine = engines.create(settings.database_url)
    stages = Stages(engine)
    stages.fail(stages.ready_job("1.2.826.0.1.3680043.10.1"))
    delivery = stages.delivery(stages.ready_job("1.2.3.4.5.6"))
    stages.deliveries.deferred(delivery, "pacs: object 1.2.826.0.1.3680043.10.1.7 not accepted", datetime.now(UTC))
    skipped = stages.ready_job("1.2.3.4.5.7")
    with engines.for_writing(engine).begin() as connection:
        connection.execute(update(Series).values(series_description=PATIENT, study_description=PATIENT, body_part=PATIENT))
        connection.execute(
            update(Job).where(Job.job_id == skipped).values(state=JobState.SKIPPED, reason=f"body part is {PATIENT}")
        )
    engine.dispose()
    return file


def test_the_bundle_holds_neither_patients_nor_secrets(config, tmp_path) -> None:
    out = tmp_path / "bundle.zip"
    done = CliRunner().invoke(app, ["support-bundle", "--out", str(out), "--config", str(config)])
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(out) as bundle:
        found = {name: bundle.read(name).decode() for name in bundle.namelist()}
    everything = "\n".join(found.values())
    planted = (PATIENT, "DOE", "JANE", SECRET, "hunter2", DIGEST, "1.2.826.0.1.3680043.10.1", "1.2.3.4.5.6")
    assert [value for value in planted if value in everything] == []
    database = json.loads(found["database.json"])
    assert database["jobs"] == {"ANALYSED": 1, "FAILED": 1, "SKIPPED": 1}
    assert database["deliveries"] == {"pacs PENDING": 1}
    assert [job["reason"] for job in database["failed_jobs"]] == ["not enough memory for this series"]
    assert [one["last_error"] for one in database["failed_deliveries"]] == ["pacs: object (UID) not accepted"]
    settings = json.loads(found["settings.json"])
    assert settings["destinations"][0]["url"] == "http://127.0.0.1:1"
    assert settings["destinations"][0]["token_file"] == f"{tmp_path}/token"
    assert settings["broker"]["url"] == "redis://127.0.0.1:1"
    assert settings["web"]["tokens"][0]["sha256"] == "(left out)"
    assert "pydicom" in json.loads(found["versions.json"])["packages"]
    checks = {one["what"]: one for one in json.loads(found["check.json"])}
    assert not checks["destination pacs"]["passed"]
    assert checks["deliveries to pacs"]["found"] == "1 wait after an error"
    again = CliRunner().invoke(app, ["support-bundle", "--out", str(out), "--config", str(config)])
    assert again.exit_code == 1
    assert "exists: choose another --out" in again.output


def test_keys_of_later_versions_with_a_secret_are_left_out() -> None:
    given = {"api_secret": "x", "password": "x", "token": "x", "secret_file": "/run/x", "list": [{"passcode": "x"}]}
    assert without_secrets(given) == {
        "api_secret": "(left out)",
        "password": "(left out)",
        "token": "(left out)",
        "secret_file": "/run/x",
        "list": [{"passcode": "(left out)"}],
    }


def test_check_hints_at_what_may_fail_later_and_is_not_red_for_it(config) -> None:
    settings = load(config)
    found = {hint.what: hint for hint in hints(settings)}
    assert found["backup"].found == "none by `alnnode backup`"
    assert found["deliveries to pacs"].found == "1 wait after an error"
    assert "notifications" not in found
    assert all(result.passed for result in check._hints(settings))
    (settings.node.data_dir / "last-backup").touch()
    found = {hint.what: hint for hint in hints(settings.model_copy(update={"notify": Notify()}))}
    assert "backup" not in found
    assert found["notifications"].advice == "set [notify] webhook or mail"


def test_hints_need_no_database(tmp_path) -> None:
    (tmp_path / "config.toml").write_text(f'[node]\ndata_dir = "{tmp_path}/none"\n')
    assert {hint.what for hint in hints(load(tmp_path / "config.toml"))} == {"notifications", "backup"}
    assert not (tmp_path / "none").exists(), "a check makes nothing"
