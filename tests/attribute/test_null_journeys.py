"""Null journeys against loops over touches."""

from __future__ import annotations

import numpy as np
import pytest

from closedloop.attribute import event_paths
from closedloop.attribute.chains import channel_codes, nulls_of
from closedloop.attribute.rows import Rows
from closedloop.records.arms import Arms
from closedloop.records.moments import US_PER_DAY
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform", "campaign"))
DAY0 = 19_000


def by_hand(touches, longest):
    """Runs of touches at most a window apart, cut every window and a microsecond after they began: (touches, day of the cut)."""
    out, run, began = [], [], None
    for user, at in sorted(touches):
        new_run = not run or run[-1][0] != user or at - run[-1][1] > longest
        stretch = None if new_run else (at - began) // (longest + 1)
        if run and (new_run or stretch != (run[-1][1] - began) // (longest + 1)):
            out.append((len(run), (began + ((run[-1][1] - began) // (longest + 1) + 1) * (longest + 1) - 1) // US_PER_DAY))
            run = []
        began = at if new_run else began
        run.append((user, at))
    if run:
        out.append((len(run), (began + ((run[-1][1] - began) // (longest + 1) + 1) * (longest + 1) - 1) // US_PER_DAY))
    return sorted(out)


@pytest.mark.parametrize("seed", range(8))
def test_runs_of_unanswered_touches_are_cut_as_by_hand(batch_of, seed):
    """Random touches of four users, some in whole windows from each other, those whose window is still open left out."""
    rng = np.random.default_rng(seed)
    at = DAY0 + np.where(rng.random(40) < 0.5, rng.integers(0, 40, 40), rng.uniform(0, 40, 40))
    user = rng.integers(0, 4, 40)
    touches = [{"id": str(i), "kind": "click", "user": f"u{user[i]}", "at": at[i], "platform": "a"} for i in range(40)]
    rows, _ = Rows.of(batch_of(touches), ("platform",), None)
    limits = AttributionWindow(click="3d", view=None).limits_us()
    until = round((DAY0 + 38) * US_PER_DAY)
    answered = rng.random(40) < 0.2
    found = nulls_of(rows, answered, limits, until)
    free = [(int(rows.user[i]), int(rows.at[i])) for i in range(40) if not answered[i] and rows.at[i] + limits.max() < until]
    sizes = np.bincount(found.journey, minlength=len(found.day))
    assert sorted(zip(sizes.tolist(), found.day.tolist(), strict=True)) == by_hand(free, int(limits.max()))
    assert sorted(found.touch.tolist()) == [i for i in sorted(range(40)) if not answered[i] and rows.at[i] + limits.max() < until]


def test_views_switched_off_are_in_no_null_journey(batch_of):
    """Without a view window a view is no touch of anybody's journey; a touch whose window ends just now is still open."""
    rows = [
        {"id": "1", "kind": "impression", "user": "u", "at": DAY0, "platform": "a", "campaign": "x"},
        {"id": "2", "kind": "click", "user": "u", "at": DAY0 + 0.25, "platform": "b", "campaign": "x"},
        {"id": "3", "kind": "click", "user": "v", "at": DAY0 + 5.0, "platform": "c", "campaign": "x"},
        {"id": "4", "kind": "click", "user": "w", "at": DAY0 + 8.0, "platform": "d", "campaign": "x"},
    ]
    paths = event_paths(batch_of(rows), AttributionWindow(click="3d", view=None), tags=TAGS).to_columns()
    assert [(p, n) for p, n in zip(paths["path"], paths["nulls"], strict=True) if n] == [("b", 1)]


def test_channels_are_the_sorted_tags():
    """A missing tag is a question mark."""
    arms = Arms.of(("platform", "campaign"), [("b", "1"), (None, "2"), ("a", "3"), ("b", "4")])
    names, code = channel_codes(arms, "platform")
    assert names == ("?", "a", "b")
    assert [names[c] for c in code] == ["b", "?", "a", "b"]
