"""Numbers with their nouns."""

from alnnode.counted import counted


def test_one_is_singular_and_all_else_plural() -> None:
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(number, "delivery", "deliveries") for number in (1, 3)] == ["1 delivery", "3 deliveries"]
