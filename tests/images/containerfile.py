"""Read a Containerfile (https://docs.docker.com/reference/dockerfile/) as far as those of deploy/ use the format."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction with its arguments."""

    instruction: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The arguments as words."""
        return shlex.split(self.rest)

    @property
    def command(self) -> list[str]:
        """The command in exec form."""
        found: list[str] = json.loads(self.rest[self.rest.index("[") :])
        return found


@dataclass(slots=True)
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def last(self, instruction: str) -> Step:
        """Return the last instruction of a kind."""
        return [step for step in self.steps if step.instruction == instruction][-1]


def stages(text: str) -> list[Stage]:
    """Return the stages of a Containerfile.

    Raises:
        ValueError: it has an instruction that this module does not know.
    """
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[Stage] = []
    for line in re.sub(r"\\\n", " ", lines).splitlines():
        if not line.strip():
            continue
        instruction, _, rest = line.strip().partition(" ")
        if instruction not in KNOWN:
            raise ValueError(f"{instruction} is not played")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name or str(len(found))))
        else:
            found[-1].steps.append(Step(instruction, rest.strip()))
    return found


def allowed(path: str, rules: str) -> bool:
    """Return whether a .dockerignore with these rules lets a file pass to the builder: the last line that matches decides."""
    passes = True
    parts = Path(path).parts
    starts = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    for line in rules.splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        inside = pattern.startswith("**/") and pattern[3:] in parts
        if inside or any(fnmatch(start, pattern) for start in starts if "/" not in start or "/" in pattern):
            passes = line.startswith("!")
    return passes
