"""Where objects are stored: which combinations of settings are refused."""

import pytest

from alnnode.errors import SettingsError
from alnnode.settings import load


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[spool]\nendpoint = "http://127.0.0.1:1"\n', "without a bucket"),
        ('[spool]\nbucket = "images"\n', "hosts with a spool.bucket do not share"),
        ('[report]\nfollow_up = "off"\n[spool]\nbucket = "Images"\n', "bucket"),
        ('[report]\nfollow_up = "off"\n[spool]\nbucket = "images"\nendpoint = "s3.example.org"\n', "endpoint"),
    ],
)
def test_a_place_that_cannot_work_is_refused(tmp_path, toml, words) -> None:
    config = tmp_path / "config.toml"
    config.write_text(toml)
    with pytest.raises(SettingsError, match=words):
        load(config)


def test_a_bucket_and_the_folder(tmp_path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[report]\nfollow_up = "off"\n[spool]\nbucket = "images"\n')
    assert load(config).spool.bucket == "images"
    config.write_text("")
    assert load(config).spool.bucket == ""
