"""The page's own colours can be read, in dark and in light."""

import re

import pytest

from closedloop.display.page import page, style, table


def _luminance(colour: str) -> float:
    full = "".join(2 * c for c in colour[1:]) if len(colour) == 4 else colour[1:7]
    part = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in part]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    a, b = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (a + 0.05) / (b + 0.05)


SCHEMES = [dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]+)", block)) for block in re.findall(r":root \{[^}]*--paper[^}]*\}", style())]


@pytest.mark.parametrize("colours", SCHEMES, ids=["light", "dark"])
def test_text_and_graphics_have_enough_contrast(colours: dict[str, str]) -> None:
    """Words 4.5 to 1 and graphics 3 to 1 against the ground they stand on (WCAG 2.2, criteria 1.4.3 and 1.4.11)."""
    assert len(SCHEMES) == 2
    for ground in ("paper", "card"):
        for name in ("ink", "soft", "ok", "warn", "bad"):
            assert _contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in ("a", "b", "reference", "truth"):
        assert _contrast(colours[name], colours["paper"]) >= 3, name


def test_dark_scheme_names_every_colour_of_the_light_one() -> None:
    """No colour is left over from the other scheme."""
    assert SCHEMES[0].keys() == SCHEMES[1].keys()


def test_every_colour_that_is_used_is_named() -> None:
    """A typo in a variable would draw black on black."""
    assert set(re.findall(r"var\(--([a-z0-9]+)\)", style())) <= set(SCHEMES[0])


def test_page_forbids_everything_and_escapes_its_title() -> None:
    """The policy of the page lets nothing load and nothing run."""
    source = page("</title><script>", "<p>x</p>")
    assert "<script" not in source
    assert "default-src &#x27;none&#x27;" in source
    assert "url(" not in source
    assert "@import" not in source


def test_table_says_what_it_leaves_out() -> None:
    """Rows that are not shown are counted."""
    assert "and 1,200 more" in table(["a"], "l", [["x"]], more=1200)
    assert "more" not in table(["a"], "l", [["x"]])
