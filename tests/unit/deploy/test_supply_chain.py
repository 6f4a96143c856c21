"""What the node is made of: pinned by digest, and held against advisories."""

import json
import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from alnnode.cli import advisories, app
from alnnode.errors import AdvisoryError

ROOT = Path(__file__).parents[3]
LOCKS = ("requirements-listener.lock", "requirements-worker.lock", "requirements-build.lock")
# They are needed on other systems or Pythons than the tested ones only, or come with Python.
NOT_TESTED = {"async-timeout", "colorama", "setuptools", "tzdata"}


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and digests of each package of a lock."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        package, version, rest = re.fullmatch(r"([\w.-]+)==(\S+)(.*)", line).groups()
        found[canonicalize_name(package)] = version, re.findall(r"--hash=sha256:([0-9a-f]{64})(?= |$)", rest)
    return found


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_to_the_tested_version_by_digest(name) -> None:
    packages, tested = locked(name), constraints()
    assert {package for package in packages if package not in tested} <= NOT_TESTED, "run `make lock`"
    assert {package: version for package, (version, _) in packages.items() if tested.get(package, version) != version} == {}
    assert [package for package, (_, digests) in packages.items() if not digests] == []


def test_the_locks_hold_all_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, wanted in ((LOCKS[0], extras["s3"]), (LOCKS[1], [*extras["worker"], *extras["s3"]])):
        packages = locked(name)
        for text in [*project["dependencies"], *wanted]:
            requirement = Requirement(text)
            version, _ = packages[canonicalize_name(requirement.name)]
            assert version in requirement.specifier, f"{name}: {text}; run `make lock`"
    assert "torch" not in locked(LOCKS[0])


def advisory(**affected) -> dict:
    return {
        "id": "PYSEC-1",
        "summary": "it leaks",
        "affected": [{"package": {"ecosystem": "PyPI", "name": "Some_Package"}, **affected}],
    }


def events(*pairs: tuple[str, str]) -> dict:
    return {"ranges": [{"type": "ECOSYSTEM", "events": [dict([pair]) for pair in pairs]}]}


CASES = {
    "before the fix": ("1.9", events(("introduced", "0"), ("fixed", "2.0")), "2.0"),
    "a candidate of the fix": ("2.0rc1", events(("introduced", "0"), ("fixed", "2.0")), "2.0"),
    "the fix": ("2.0", events(("introduced", "0"), ("fixed", "2.0")), None),
    "ten is after two": ("2.10", events(("introduced", "0"), ("fixed", "2.9")), None),
    "before it came": ("0.9", events(("introduced", "1.0"), ("fixed", "2.0")), None),
    "it came back": ("3.1", events(("introduced", "1"), ("fixed", "2"), ("introduced", "3"), ("fixed", "3.2")), "3.2"),
    "between": ("2.5", events(("introduced", "1"), ("fixed", "2"), ("introduced", "3"), ("fixed", "3.2")), None),
    "the last one affected": ("1.4", events(("introduced", "0"), ("last_affected", "1.4")), ""),
    "after the last one": ("1.4.post1", events(("introduced", "0"), ("last_affected", "1.4")), None),
    "named": ("1.4", {"versions": ["1.3", "1.4"]}, ""),
    "not named": ("1.5", {"versions": ["1.3", "1.4"]}, None),
    "never fixed": ("9", events(("introduced", "0")), ""),
    "no version at all": ("unknown", events(("introduced", "0"), ("fixed", "1")), "1"),
    "commits say nothing": ("1", {"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_versions_are_judged_by_the_ranges_of_an_advisory(case) -> None:
    version, affected, fixed = CASES[case]
    count, found = advisories.check([advisory(**affected)], {"some-package": version, "other": "1"})
    assert count == 1
    assert [one.fixed for one in found] == ([] if fixed is None else [fixed])


def test_other_packages_other_ecosystems_and_withdrawn_advisories_do_not_count() -> None:
    one = advisory(**events(("introduced", "0")))
    other = advisory(**events(("introduced", "0")))
    other["affected"][0]["package"]["ecosystem"] = "npm"
    assert advisories.check([one], {"something-else": "1"})[1] == []
    assert advisories.check([other], {"some-package": "1"})[1] == []
    assert advisories.check([{**one, "withdrawn": "2026-01-01T00:00:00Z"}], {"some-package": "1"})[1] == []


def planted(folder: Path, package: str) -> Path:
    """An advisory on the installed version of a package."""
    one = advisory(**events(("introduced", "0"), ("fixed", "99999")))
    one["affected"][0]["package"]["name"] = package
    path = folder / f"{package}.json"
    path.write_text(json.dumps(one))
    return path


def test_one_vulnerable_package_among_all_that_are_installed_is_found(tmp_path) -> None:
    run = CliRunner().invoke
    clean = run(app.app, ["advisories", str(planted(tmp_path, "not-installed-here"))])
    assert (clean.exit_code, "1 advisories, 0 findings" in clean.output) == (0, True)
    bad = planted(tmp_path, "PyDICOM")
    for source in (bad, tmp_path, archive(tmp_path)):
        found = run(app.app, ["advisories", str(source)])
        assert found.exit_code == 1
        assert re.search(r"^pydicom 3\.\S+: PYSEC-1: it leaks \(fixed in 99999\)$", found.output, re.MULTILINE)


def archive(folder: Path) -> Path:
    """The same as osv.dev packs them."""
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as out:
        for file in folder.glob("*.json"):
            out.write(file, file.name)
    return path


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"id": 4}', "\x00"])
def test_what_is_no_advisory_is_an_error_and_not_an_all_clear(tmp_path, content) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(AdvisoryError):
        list(advisories.read([path]))
    with pytest.raises(AdvisoryError):
        list(advisories.read([tmp_path / "nowhere.json"]))
    with pytest.raises(AdvisoryError, match="PYSEC-1"):
        advisories.check([advisory(ranges=[{"type": "ECOSYSTEM", "events": 5}])], {"some-package": "1"})
