"""The pictures of the console show the console as it is."""

from __future__ import annotations

from docs import screens


def test_the_pictures_are_of_these_templates_and_this_stylesheet():
    taken_of = (screens.FOLDER / "taken-of").read_text("utf-8").strip()
    assert taken_of == screens.digest(), "The console looks different now: run `make screens`, and look at the pictures"


def test_every_picture_is_shown_somewhere():
    pages = "".join((screens.ROOT / name).read_text("utf-8") for name in ("README.md", "docs/console.md"))
    taken = sorted(file.name for file in screens.FOLDER.glob("*.png"))
    assert taken
    assert [name for name in taken if f"screens/{name}" not in pages] == []
