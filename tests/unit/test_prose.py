"""The documentation is plain technical English: docs/style/words.toml, proselint and the length of sentences."""

from pathlib import Path

import pytest
from prose import MAX_WORDS, blocks, findings, sentences, words

ROOT = Path(__file__).parents[2]
WORDS = words(ROOT / "docs" / "style" / "words.toml")
# Pages that are not yet written by these rules; the list is to become empty.
PENDING: set[str] = set()
# The card is a file of the shipped model bundle: other words would be another digest, so another model.
FROZEN = {"docs/model-card.md"}
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *(
            ROOT / name
            for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "config.example.toml", "benchmarks/README.md")
        ),
        *(ROOT / "docs").rglob("*.md"),
    )
    if path.exists()
)


def check(text: str, tmp_path: Path, name: str = "page.md") -> list[str]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return findings(blocks(tmp_path / name), WORDS)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in PENDING | FROZEN])
def test_a_page_is_plain_english(page: str) -> None:
    assert findings(blocks(ROOT / page), WORDS) == []


def test_pages_that_are_left_out_exist() -> None:
    assert set(PAGES) >= PENDING | FROZEN


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.pattern.pattern)
def test_each_entry_finds_its_bad_sentences_and_passes_its_good_ones(word) -> None:
    assert [text for text in word.bad if not word.pattern.search(text)] == []
    assert [text for text in word.good if word.pattern.search(text)] == []


def test_a_planted_sentence_is_found_with_its_line(tmp_path: Path) -> None:
    page = "# A page\n\nThe listener stores objects.\n\n| a | b |\n|---|---|\n| c | labels dealt out\tanew |\n"
    assert [line.split(": ")[0] for line in check(page, tmp_path)] == ["line 7", "line 7"]


def test_proselint_finds_what_it_knows(tmp_path: Path) -> None:
    assert "proselint, redundancy" in "".join(check("The listener keeps an ATM machine.\n", tmp_path))


def test_code_and_addresses_are_not_prose(tmp_path: Path) -> None:
    page = "Run `told anew` or [this page](https://example.org/anew).\n\n    told anew\n\n```\ntold anew\n```\n"
    assert check(page, tmp_path) == []


def test_comments_of_settings_are_prose_and_keys_are_not(tmp_path: Path) -> None:
    text = '[node]\n# The first line of a comment\n# is told here.\n# told = "anew"\nkey = "anew"\n'
    assert [line.split(": ")[0] for line in check(text, tmp_path, "settings.toml")] == ["line 2"]


def test_a_long_sentence_is_found_and_two_short_ones_are_not(tmp_path: Path) -> None:
    half = "store it " * (MAX_WORDS // 4)
    assert check(f"{half}{half}now.\n", tmp_path) != []
    assert check(f"{half}(e.g. {half.strip()}\n", tmp_path) != []
    assert check(f"{half.strip()}. {half}\n", tmp_path) == []


def test_sentences_end_at_full_stops_but_not_in_numbers_or_abbreviations() -> None:
    assert list(sentences("Park et al. found 0.968. The others (e.g. ours) did not.")) == [
        "Park et al. found 0.968.",
        "The others (e.g. ours) did not.",
    ]
