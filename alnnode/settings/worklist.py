"""Section ``[worklist]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from alnnode.settings.section import Section


class Worklist(Section):
    """Which workitems (UPS, PS3.4 Annex CC) this node performs."""

    perform: bool = True
    # Scheduled Workitem Codes, "scheme:value": two of PS3.16 CID 9231 and one of this software.
    codes: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^:\\]{1,16}:[^\\]{1,16}$")], ...],
        Field(description='"scheme:value", such as "DCM:110004"'),
    ] = (
        "DCM:110004",  # Computer Aided Detection
        "DCM:110003",  # Computer Aided Diagnosis
        "99ALNNODE:ANALYSE",
    )
