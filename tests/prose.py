"""The prose linter: sentences of Markdown pages and of the comments in a TOML file, against docs/style/words.toml, proselint and a bound in words."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from proselint.checks import __register__ as proselint_checks
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from markdown_it.token import Token

MAX_WORDS = 40
CODE = "`x`"  # stands for a piece of code: one word that no pattern matches
# The checks of proselint that are right on these pages. Not used: typography (curly quotes, "résumé" for "resume"), needless variants ("salience" for
# "saliency"), psychology (p values), lexical illusions (it reads two equal figures as a repeated word; words.toml has its own entry).
PROSELINT = {
    "misc.phrasal_adjectives": False,  # takes "family-" for an adverb
    "archaism": True,
    "cliches": True,
    "hedging": True,
    "malapropisms": True,
    "misc": True,
    "mixed_metaphors": True,
    "mondegreens": True,
    "nonwords": True,
    "oxymorons": True,
    "redundancy": True,
    "skunked_terms": True,
    "uncomparables": True,
}
ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et al|vs|cf|Fig|Curr|approx|no)\.$")


@dataclass(frozen=True, slots=True)
class Word:
    """An entry of the word list."""

    pattern: re.Pattern[str]
    write: str
    why: str
    bad: Sequence[str]
    good: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, heading, list item or table cell, without its markup; `line` counts from 1."""

    line: int
    text: str


def words(path: Path) -> list[Word]:
    """Read the word list."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["word"]
    return [Word(re.compile(e["pattern"], re.IGNORECASE), e["write"], e["why"], e["bad"], e.get("good", ())) for e in entries]


def blocks(path: Path) -> list[Block]:
    """Return the prose of a page: Markdown, or the comments of a TOML file."""
    text = path.read_text(encoding="utf-8")
    return list(_comments(text) if path.suffix == ".toml" else _markdown(text))


def findings(page: Sequence[Block], listed: Sequence[Word]) -> list[str]:
    """Return what a reader would stumble over, as "line: what: where"."""
    found = [
        (block.line, f"'{match.group()}': write {word.write} ({word.why})")
        for block in page
        for word in listed
        for match in word.pattern.finditer(block.text)
    ]
    found += [
        (block.line, f"{count} words in a sentence, at most {MAX_WORDS}: {sentence[:80]}…")
        for block in page
        for sentence in sentences(block.text)
        if (count := len(re.findall(r"[\w`]\S*", sentence))) > MAX_WORDS
    ]
    return [f"line {line}: {what}" for line, what in sorted([*found, *_proselint(page)])]


def sentences(text: str) -> Iterator[str]:
    """Split a paragraph at full stops, question marks and exclamation marks; a colon or semicolon ends no sentence."""
    start = 0
    for end in re.finditer(r"[.?!][\"')*]*(?=\s|$)", text):
        sentence = text[start : end.end()]
        if not ABBREVIATIONS.search(sentence):
            yield sentence.strip()
            start = end.end()
    if text[start:].strip():
        yield text[start:].strip()


def _markdown(text: str) -> Iterator[Block]:
    line = 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else line
        if token.type == "inline":
            yield Block(line, "".join(_words(part) for part in token.children or ()))


def _words(part: Token) -> str:
    if part.type == "code_inline":
        return CODE
    return " " if part.type in {"softbreak", "hardbreak"} else part.content  # links and emphasis have no content of their own


def _comments(text: str) -> Iterator[Block]:
    """Join the lines of a comment; a key that is commented out is code."""
    start, lines = 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        comment = re.match(r"#(?! ?[\w.]+ = | ?\[) ?(.+)", line)
        if comment:
            start = start if lines else number
            lines.append(comment[1])
        elif lines:
            yield Block(start, re.sub(r"`[^`]*`", CODE, " ".join(lines)))
            lines = []


def _proselint(page: Sequence[Block]) -> Iterator[tuple[int, str]]:
    registry = CheckRegistry()
    if not registry.checks:
        registry.register_many(proselint_checks)
    content = LintFile("page", "\n".join(block.text.replace("\n", " ") for block in page))
    for result in content.lint({"max_errors": 1000, "checks": PROSELINT}):
        yield page[result.pos[0] - 2].line, f"{result.check_result.message} (proselint, {result.check_result.check_path})"
