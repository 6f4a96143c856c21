"""``python -m training``: train, evaluate and export model bundles.

Each command is imported when it runs: the help needs neither seconds nor the packages of the extra [train].
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command

from alnnode.errors import AlnnodeError


class Command(NamedTuple):
    """A command: the module with its function or Typer application, and its line in the overview."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "demo": Command(
        "training.bundle_commands",
        "demo",
        "Train both networks on phantoms, calibrate, evaluate on held-out phantoms and write the bundle.",
    ),
    "attach": Command(
        "training.bundle_commands", "attach", "Put another detector into a bundle; the classifiers do not change."
    ),
    "validated": Command(
        "training.bundle_commands",
        "validated",
        'Declare that a bundle was validated on patients; only the results of such a bundle say "suspicious".',
    ),
    "evaluate": Command(
        "training.bundle_commands",
        "evaluate",
        "Evaluate a bundle on phantoms of a new seed with the true positions of the nodes.",
    ),
    "evaluate-detector": Command(
        "training.detection.evaluate_phantoms",
        "evaluate_detector",
        "Locate and classify nodes on phantoms of a new seed: FROC, accuracy of measurements, and AUROC of the found nodes.",
    ),
    "evaluate-real": Command(
        "training.detection.evaluate_patients",
        "evaluate_real",
        "Locate nodes on marked series and print sensitivity and false boxes with intervals (bootstrap over patients).",
    ),
    "evaluate-coverage": Command(
        "training.detection.evaluate_coverage",
        "evaluate_coverage",
        "Cut marked series at every side, and count axillae wrongly called covered and levels that change.",
    ),
    "evaluate-detector-implants": Command(
        "training.detection.evaluate_detector_implants",
        "evaluate_detector_implants",
        "Locate phantom nodes that are implanted into marked series, with networks that were trained without the patient.",
    ),
    "evaluate-implants": Command(
        "training.detection.evaluate_implants",
        "evaluate_implants",
        "Evaluate a bundle on phantom nodes that are implanted into real CT, beside the same nodes in phantoms: the drop between them.",
    ),
    "report": Command(
        "training.bundle_commands",
        "report",
        "Write an HTML page about a bundle on phantoms: metrics, curves, subgroups, Grad-CAM energy, largest errors.",
    ),
    "reproduce": Command(
        "training.protocol_commands",
        "reproduce",
        "Run the protocol of the paper on a phantom cohort of the same size; an interrupted run resumes.",
    ),
    "ablation": Command(
        "training.protocol_commands",
        "ablation",
        "Train the two networks of the reproduction with inputs left out, and compare them on its validation patients.",
    ),
    "lidc": Command(
        "training.protocol_commands",
        "lidc",
        "Run the two-crop protocol on real lung nodules (LIDC-IDRI): five folds by patient, each family under both crops.",
    ),
    "deeplesion": Command(
        "training.deeplesion.command",
        "deeplesion",
        "Measure on DeepLesion the recall of lesions with a label at 1, 2, 4 and 8 false positives per sub-volume.",
    ),
    "import": Command(
        "training.clinical.import_command",
        "import_nodes",
        "Make the table of a cohort with one row for each node; a label that is not known is left empty for you to fill in.",
    ),
    "cohort": Command(
        "training.clinical.cohort_commands", "app", "Train on a hospital's own nodes: one folder of DICOM files and one table."
    ),
    "onnx": Command(
        "training.bundle_commands", "onnx", "Export both networks of a bundle as ONNX and check them against PyTorch."
    ),
}


class LazyCommands(TyperGroup):
    """Imports the module of a command when the command is used, not for the overview."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is that of the base class
        """Return the names in the order of the overview."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as above
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        found = getattr(import_module(COMMANDS[cmd_name].module), COMMANDS[cmd_name].attribute)
        if not isinstance(found, typer.Typer):
            found, function = typer.Typer(rich_markup_mode=None, add_completion=False), found
            found.command(cmd_name)(function)
        command = get_command(found)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - as above
        """Write the overview from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


app = typer.Typer(
    cls=LazyCommands,
    help="Train, evaluate and export model bundles. Results on phantoms are no evidence about patients.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def root() -> None:
    """Train, evaluate and export model bundles. Results on phantoms are no evidence about patients."""


def main() -> None:
    """Run the command; print errors of the project, and missing packages, as one line and exit with code 1."""
    try:
        app()
    except AlnnodeError as error:
        _stop(str(error))
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in {"alnnode", "training"}:  # a fault of this program, not of the installation
            raise
        extra = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx"}.get(name)
        extra = extra or ("lidc" if name.startswith("efficientnet") else "train")
        _stop(f"The package {name} is not installed: run `pip install 'alnnode[{extra}]'` (in a checkout: '.[{extra}]').")


def _stop(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
