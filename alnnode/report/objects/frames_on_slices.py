"""Frames on slices of the source, with references to them, for the segmentation and the parametric map; the frame of reference."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from highdicom.enum import CoordinateSystemNames
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from alnnode.report import codes, modules
from alnnode.report.source_images import source_image
from alnnode.report.uids import uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.sr.coding import Code

    from alnnode.records import Analysis, SliceRef, Volume


class SliceFrames:
    """Some slices of a volume as a stack of frames.

    Attributes:
        slices: indices k of the volume, ascending; frame n of the pixel array lies on ``slices[n]``.
        sources: stand-ins for the source instances of these slices, each once.
    """

    def __init__(self, analysis: Analysis, volume: Volume, slices: Sequence[int]) -> None:
        self.slices = tuple(slices)
        self._references = [volume.slices[k] for k in self.slices]
        found: dict[str, Dataset] = {}
        for reference in self._references:
            if reference.sop_instance_uid not in found:
                found[reference.sop_instance_uid] = source_image(analysis, reference)
        self.sources = list(found.values())
        common = frame_of_reference(self.sources)
        for source in self.sources:
            source.FrameOfReferenceUID = common
            # highdicom would require the functional groups of a multi-frame source; `refer` sets the true SOP class.
            source.SOPClassUID = CTImageStorage
        self._thickness = round(volume.slice_thickness or volume.spacing[0], 6)
        self._distance = round(volume.spacing[0], 6)

    @property
    def positions(self) -> list[PlanePositionSequence]:
        """Image Position (Patient) of every frame, as in the source."""
        return [PlanePositionSequence(CoordinateSystemNames.PATIENT, _rounded(r)) for r in self._references]

    @property
    def orientation(self) -> PlaneOrientationSequence:
        """Image Orientation (Patient) of the source."""
        return PlaneOrientationSequence(
            CoordinateSystemNames.PATIENT, [float(c) for c in self.sources[0].ImageOrientationPatient]
        )

    @property
    def measures(self) -> PixelMeasuresSequence:
        """Pixel Spacing and Slice Thickness of the source, and Spacing Between Slices."""
        return PixelMeasuresSequence(
            pixel_spacing=[float(s) for s in self.sources[0].PixelSpacing],
            slice_thickness=self._thickness,
            spacing_between_slices=self._distance,
        )

    @property
    def measures_of_a_slice(self) -> PixelMeasuresSequence:
        """The same without Spacing Between Slices, which highdicom determines for frames that are not neighbours."""
        return PixelMeasuresSequence(
            pixel_spacing=[float(s) for s in self.sources[0].PixelSpacing], slice_thickness=self._thickness
        )

    @property
    def contiguous(self) -> bool:
        """Whether each frame but the first lies on the neighbour of the one before."""
        return all(after - before == 1 for before, after in pairwise(self.slices))

    def refer(self, dataset: Dataset, series_uid: str, derivation: Code) -> None:
        """Set the source image of every frame (PS3.3 C.7.6.16.2.6), and replace values that would not be reproducible."""
        by_position = {tuple(_rounded(reference)): reference for reference in self._references}
        for item in dataset.PerFrameFunctionalGroupsSequence:
            position = tuple(round(float(p), 6) for p in item.PlanePositionSequence[0].ImagePositionPatient)
            item.DerivationImageSequence = [_derivation(by_position[position], derivation)]
        classes = {reference.sop_instance_uid: reference.sop_class_uid for reference in self._references}
        for series in dataset.ReferencedSeriesSequence:
            for instance in series.ReferencedInstanceSequence:
                instance.ReferencedSOPClassUID = classes[instance.ReferencedSOPInstanceUID]
        organization = uid("DimensionOrganizationUID", series_uid)
        dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
        for item in dataset.DimensionIndexSequence:
            item.DimensionOrganizationUID = organization
        modules.delete_contributing_equipment(dataset)


def frame_of_reference(images: Sequence[Dataset]) -> str:
    """Return the one Frame of Reference UID of an object on these images of a series.

    When the images have none or several, it is derived from their series.
    """
    named = {str(image.get("FrameOfReferenceUID") or "") for image in images}
    only = named.pop() if len(named) == 1 else ""
    return only or uid("FrameOfReferenceUID", images[0].SeriesInstanceUID)


def _rounded(reference: SliceRef) -> list[float]:
    return [round(p, 6) + 0.0 for p in reference.position]


def _derivation(reference: SliceRef, derivation: Code) -> Dataset:
    image, item = Dataset(), Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
    if reference.frame_number is not None:
        image.ReferencedFrameNumber = [reference.frame_number]
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.SOURCE_IMAGE)]
    item.SourceImageSequence = [image]
    item.DerivationCodeSequence = [CodedConcept.from_code(derivation)]
    return item
