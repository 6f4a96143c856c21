"""The smaller files of pydicom's collection of odd and broken objects: each is taken, or refused with a reason, and none crashes a reader."""

from chaos import corpora

SMALL = 24 << 10  # bytes


def test_odd_and_broken_files_crash_nothing(tmp_path) -> None:
    small = [path for path in corpora.files([corpora.OWN]) if path.stat().st_size < SMALL][::6]
    assert len(small) >= 12, "pydicom no longer ships its test files; name another collection"
    tally = corpora.run(small, tmp_path)
    assert tally.crashes == []
    assert tally.outcomes["the door", "taken"] >= 2
    assert any("refused" in outcome for where, outcome in tally.outcomes if where == "the door")


def test_it_finds_what_crashes_and_what_hangs(monkeypatch) -> None:
    monkeypatch.setattr(corpora, "LIMIT", 1)

    def hang() -> str:
        while True:
            pass

    assert corpora.isolated(lambda: 1 // 0) == "CRASH ZeroDivisionError"
    assert corpora.isolated(hang) == "CRASH signal 14"
