"""One run over many hosts: studies under faults, the end of all jobs, and the invariants."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

from chaos import invariants
from chaos.peers import echoes
from listening import wait_for

from hosts import faults
from hosts.plan import Plan
from hosts.site import DICOM, Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

END_LIMIT = 420.0  # seconds until all jobs have ended


@dataclass
class HostsResult:
    """The result of a run.

    Attributes:
        spaces: number of network namespaces.
        leads: how often a sweep took the lead.
        faults: number of faults by kind.
        refused: how often a sender had to send a study again.
    """

    spaces: int = 0
    studies: int = 0
    images: int = 0
    leads: int = 0
    refused: int = 0
    seconds: float = 0.0
    drained: float = 0.0
    skew: int = 0
    spool: str = "a shared folder"
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the result as a Markdown table and a sentence."""
        lines = ["| fault | count |", "|---|---:|", *(f"| {name} | {count} |" for name, count in sorted(self.faults.items()))]
        counts = Counter(line.partition(":")[0] for line in self.violations)
        worst = ("LOST", "DUPLICATED", "STUCK")
        lines += [
            f"\n{self.spaces} network namespaces, spool in {self.spool}, clocks up to {self.skew} s apart",
            f"{self.faults.total()} faults over {self.studies} studies, {self.images} acknowledged images, {self.seconds:.0f} s",
            f"the lead moved {max(0, self.leads - 1)} times; all jobs ended {self.drained:.0f} s after the last fault",
            f"acknowledged images lost: {counts['LOST']}, results duplicated: {counts['DUPLICATED']}, jobs stuck: {counts['STUCK']}",
            f"other violations: {counts.total() - sum(counts[kind] for kind in worst)}",
            *self.violations[:30],
        ]
        return "\n".join(lines)


def violations(site: Site) -> Iterator[str]:
    """Yield a line for each violated invariant."""
    data = site.collected()
    rig = SimpleNamespace(database=site.postgres.local, folder=site.folder, disk=SimpleNamespace(folder=data))
    yield from invariants.violations(rig, site.studies, (site.pacs, site.archive))
    stored = set(invariants._digests(data / "spool"))
    for study in site.studies:  # nothing is deleted in this run, so every acknowledged image must be there
        missing = [uid for uid in study.acknowledged if study.digests[uid] not in stored]
        if missing:
            yield f"LOST: {len(missing)} of {len(study.acknowledged)} acknowledged images of {study.uid}"
    with site.network.inside("ward"):
        if not echoes(DICOM, site.network.addresses["lb"]):
            yield "DEAF: the node does not answer C-ECHO at the end"


def conclude(site: Site, out: HostsResult) -> None:
    """Wait until all jobs have ended, and check the invariants."""
    start = time.monotonic()
    with suppress(AssertionError):  # the invariants name the jobs that have not ended
        wait_for(site.all_ended, END_LIMIT)
    out.drained = time.monotonic() - start
    out.violations += list(dict.fromkeys(violations(site)))
    out.spaces, out.studies = len(site.network.names) + 1, len(site.studies)
    out.images = sum(len(study.acknowledged) for study in site.studies)
    out.leads = sum(service.logged("lead_taken") for service in site.services.values())
    out.refused = site.senders.refused + site.secure_senders.refused
    out.spool = "an object storage" if site.store is not None else out.spool
    out.skew = max(site.clocks.values()) - min(site.clocks.values())


def hosts(
    folder: Path, plan: Plan, seed: int, *, faults_count: int, studies_count: int, longest: float, only: Sequence[str] = ()
) -> HostsResult:
    """Run the complete schedule once."""
    start, out = time.monotonic(), HostsResult()
    with Site(folder, plan, seed) as site:
        for number, (name, make) in enumerate(faults.schedule(site, faults_count, longest, only)):
            while len(site.studies) < studies_count * (number + 1) / faults_count:
                site.send()
            time.sleep(site.random.uniform(0.2, 1.5))
            make()
            out.faults[name] += 1
        conclude(site, out)
    out.seconds = time.monotonic() - start
    return out
