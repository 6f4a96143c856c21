"""Write docs/cli.md from the commands: ``python -m alnnode.cli.reference docs/cli.md``. A test compares the page with the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from alnnode.cli.app import app

WIDTH = 100  # characters
HEAD = """\
# Command line

This page lists every command of `alnnode` with its arguments and options. `python -m alnnode.cli.reference docs/cli.md` writes it from
the commands; a test compares it with them. `alnnode COMMAND --help` prints the same. [operations.md](operations.md) shows how to use them.

## Options of `alnnode` itself

| option | meaning |
|---|---|
| `--version` | print the version |
| `--install-completion` | add completion of commands and options to the current shell (bash, zsh, fish) |
| `--show-completion` | print that completion, to copy it |
| `-h`, `--help` | print the overview, or the help of a command |

## Exit codes

| code | meaning |
|---|---|
| 0 | success |
| 1 | something failed, or is missing |
| 2 | the command line is wrong |
| 3 | the settings cannot be used |
| 4 | a series could not be analysed; its reason is printed, and its report is written |

## Environment and files

- `ALNNODE_CONFIG` names the settings file, like `--config`. Without both, `config.toml` in the current folder is used if it exists.
- `ALNNODE__SECTION__KEY` sets one key, for example `ALNNODE__LISTENER__PORT=104`. It has precedence over the file.
- `[node] data_dir` contains all data of the node.
"""


def page() -> str:
    """Return the page as Markdown."""
    commands = get_command(app).commands  # type: ignore[attr-defined]  # the application has several commands
    return "\n".join([HEAD, *(_section(name, command) for name, command in commands.items())])


def _section(name: str, command: Any) -> str:
    with command.make_context(f"alnnode {name}", [], resilient_parsing=True, terminal_width=WIDTH) as context:
        shown = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    return f"## alnnode {name}\n\n```text\n{shown}\n```\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
