"""Groups of a report that share a tracking UID describe one mark: its contours are kept on every slice, and counted once."""

from alnnode.locate.marks.sr import _joined_drawings
from alnnode.records import Drawing, MarkShape


def contour(image: str, size: float) -> Drawing:
    return Drawing(MarkShape.OUTLINE, ((0.0, 0.0), (size, 0.0), (size, size), (0.0, size)), image)


AXES = Drawing(MarkShape.AXES, ((0.0, 0.0), (9.0, 0.0), (4.0, 2.0), (4.0, -2.0)), "1.2")


def test_planar_groups_on_several_slices_keep_every_contour() -> None:
    joined: tuple[Drawing, ...] = ()
    for image in ("1.1", "1.2", "1.3"):
        joined = _joined_drawings(joined, (contour(image, 9.0),))
    assert {drawing.sop_instance_uid for drawing in joined} == {"1.1", "1.2", "1.3"}


def test_the_contour_that_a_volumetric_group_draws_too_is_counted_once() -> None:
    planar, volumetric = (AXES, contour("1.2", 9.0)), tuple(contour(image, 8.0) for image in ("1.1", "1.2", "1.3"))
    for one, other in ((planar, volumetric), (volumetric, planar)):
        assert set(_joined_drawings(one, other)) == {AXES, *volumetric}


def test_an_outer_contour_and_a_hole_of_one_group_stay() -> None:
    ring = (contour("1.2", 9.0), contour("1.2", 3.0))
    assert _joined_drawings(ring, (AXES,)) == (AXES, *ring)
