"""Presentation contexts that the listener accepts (docs/conformance.md has the same lists)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import uid
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]  # generated at import

from alnnode.clients.commitment_scu import SYNTAXES

if TYPE_CHECKING:
    from pynetdicom.presentation import PresentationContext

# The images that are analysed, and the objects in which radiologists mark nodes.
STORAGE_CLASSES = (
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.ComprehensiveSRStorage,
    uid.Comprehensive3DSRStorage,
    uid.EnhancedSRStorage,
    uid.SegmentationStorage,
    uid.RTStructureSetStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
    uid.KeyObjectSelectionDocumentStorage,
)

# All that pydicom decodes with the plugins that alnnode installs, in the order of preference. The acceptor chooses (PS3.8 9.3.3.2)
# among those that the sender proposes.
TRANSFER_SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)


def supported_contexts() -> list[PresentationContext]:
    """Return what the listener negotiates: Verification, Storage Commitment and Storage."""
    commitment = build_context(StorageCommitmentPushModel, list(SYNTAXES))
    # A peer is SCU of its own requests, and SCP when it sends the result of a request of this node.
    commitment.scu_role = commitment.scp_role = True
    return [
        build_context(Verification, [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian]),
        commitment,
        *(build_context(sop_class, list(TRANSFER_SYNTAXES)) for sop_class in STORAGE_CLASSES),
    ]
