"""The paths of DICOMweb (PS3.18), which its routes, the limits of addresses, the audit trail and responses share."""

from __future__ import annotations

DICOMWEB = "/dicom-web"
STUDIES = f"{DICOMWEB}/studies"  # STOW-RS, and searches for studies
STUDY = f"{STUDIES}/{{study}}"
