"""Regular expressions of an administrator: a search ends after a limited time, whatever the expression and the text are.

`re` has no limit: an expression such as ``(a|a)*$`` needs 2^n steps for n characters, and the texts come from senders. `regex` has one. What
both accept they read alike, with two exceptions: a POSIX class such as ``[[:alpha:]]`` has its usual meaning, and not that of `re`; a fuzzy
match such as ``chest{e<=1}``, which is literal text for `re`, is refused.
"""

from __future__ import annotations

import re
import warnings

SEARCH_LIMIT, CHECK_LIMIT = 0.5, 0.2  # seconds of CPU time of this process
# Escaped characters and sets, which are passed over; then a fuzzy match: a letter for insertions, deletions, substitutions or errors.
_FUZZY = re.compile(
    r"\\.|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|(?P<fuzzy>\{[\d\s+,<=]*[dies][\d\s+,<=dies]*(?::[^{}]*)?\})", re.DOTALL
)
LENGTH = 64  # characters of a Series Description (PS3.5 6.2, VR LO)


def is_found(pattern: str, text: str, limit: float = SEARCH_LIMIT) -> bool:
    """Return whether an expression is found in a text, without regard to case.

    Raises:
        TimeoutError: the search took longer than ``limit`` seconds of CPU time.
    """
    import regex  # noqa: PLC0415 - most nodes have no expressions

    return regex.search(pattern, text, regex.IGNORECASE, timeout=limit) is not None


def checked(pattern: str) -> str:
    """Return an expression if it is valid, and ends in time for texts that are made of its characters.

    Raises:
        ValueError: what is wrong with it, and what to do.
    """
    if not pattern:
        return pattern
    fuzzy = next((found["fuzzy"] for found in _FUZZY.finditer(pattern) if found["fuzzy"]), None)
    if fuzzy:
        raise ValueError(f"{fuzzy} is not a number of repetitions; to find this text, write \\{fuzzy}")
    import regex  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of `re`, about sets within sets: POSIX classes look like them
            re.compile(pattern)
        regex.compile(pattern)
    except (re.error, regex.error) as error:
        raise ValueError(f"not a regular expression ({error}); escape special characters with a backslash") from error
    characters = "".join(dict.fromkeys(one for one in pattern if one.isalnum() or one == " ")) or "a"
    for unit in (*characters, characters):
        text = (unit * LENGTH)[: LENGTH - 1] + "\0"  # the last character prevents most matches
        try:
            is_found(pattern, text, CHECK_LIMIT)
        except TimeoutError:
            raise ValueError(
                "a search with this regular expression takes too long; avoid * and + after a group that has alternatives, "
                "or * and + itself"
            ) from None
    return pattern
