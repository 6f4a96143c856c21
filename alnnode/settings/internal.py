"""Limits and intervals that no site needs to set, each with its reason.

They are no keys for administrators: config.example.toml does not list them, and a later version may change or remove any of them. Tests
set them (``[internal]``) to reach a limit, or not to wait for it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from alnnode.settings.section import Seconds, Section

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(gt=0, le=100_000)]  # per second


class Internal(Section):
    """Limits and intervals that tests set."""

    # The listener. A TLS handshake and an association request take milliseconds; [listener] timeout is for images.
    association_timeout: Seconds = 30
    # Connections of one address to each process. A modality opens one per series or per image; a port scanner opens more.
    connection_rate: Rate = 50
    # How often the sweep looks for complete series. One query; a radiographer does not notice the delay.
    sweep_interval: Seconds = 1

    # Analyses of one job that lose their worker, run out of memory or end in an unforeseen error, before the job fails. Twice may be bad
    # luck; what fails three times fails again.
    analysis_attempts: Annotated[int, Field(ge=1, le=20)] = 3

    # Deliveries. The wait doubles from the first to the longest: a PACS that restarts gets its results soon, and one that is down for the
    # night is not flooded with attempts.
    retry_first: Seconds = 5
    retry_longest: Seconds = 900
    # Storage commitment: how long a PACS may take before the node asks again, and how often it may leave the question unanswered. An
    # archive that commits at night answers well within these three days.
    commitment_timeout: Seconds = 3600
    commitment_attempts: Count = 72

    # Attempts to fetch the input of a workitem before it is canceled. An archive that fails three times needs a person.
    fetch_attempts: Annotated[int, Field(ge=1, le=100)] = 3

    # The HTTP service. A STOW-RS request may hold a whole study; the bound keeps one request from filling the disk.
    web_request_mb: Count = 16384
    # A request head is small. A body that grows by less than 64 KiB in half a minute holds a connection for nothing.
    web_header_timeout: Seconds = 10
    web_body_timeout: Seconds = 30
    # Requests of one client. The rate leaves room for a viewer that scrolls through a series, and stops a loop that went wrong.
    web_request_rate: Rate = 500

    # Notifications. A fault is told after minutes; a round is a few queries.
    notify_interval: Seconds = 5

    # Audit messages that wait while the repository is down. The bound keeps them from filling the disk.
    audit_messages: Annotated[int, Field(ge=100, le=1_000_000)] = 100_000
