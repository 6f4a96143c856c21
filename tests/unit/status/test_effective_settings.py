"""The configuration is shown without secrets, wherever a URL holds them."""

import pytest

from alnnode.cli import support_bundle
from alnnode.settings import Settings
from alnnode.status import effective_settings


@pytest.mark.parametrize("password", ["hunter", "hun/ter", "hun?ter", "hun#ter", "hun@ter"])
def test_a_password_of_the_database_is_not_shown_whatever_its_letters(password: str) -> None:
    settings = Settings(database={"url": f"postgresql+psycopg://alnnode:{password}@db.example.org/alnnode"})
    shown = "\n".join(value.text for _, values in effective_settings.sections(settings) for value in values)
    bundled = str(support_bundle.without_secrets(settings.model_dump(mode="json")))
    for text in (shown, bundled):
        assert "hun" not in text
        assert "ter@" not in text
        assert "db.example.org" in text


def test_the_path_of_a_webhook_is_not_shown(tmp_path) -> None:
    webhook = {"url": "https://hooks.example.org/services/T0/hunter?x=hunter", "secret_file": tmp_path / "secret"}
    settings = Settings(notify={"webhook": webhook})
    shown = "\n".join(value.text for _, values in effective_settings.sections(settings) for value in values)
    assert "hunter" not in shown
    assert "https://hooks.example.org/(not shown)" in shown
