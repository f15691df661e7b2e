"""Another window (or model) over the events that a state still holds: no event is read again.

Law of this file: only whole days go over. A day of touches is whole when every event that can lie in one of its conversions' journeys is
still held as a row, that is one new window after the first day whose rows are all there; older days are left out, never mixed in as they
were under the old terms. Touches of one more window before stay as context of younger conversions; null journeys begin anew on the first
whole day.
"""

from __future__ import annotations

import attrs
import numpy as np

from closedloop.attribute.rows import NO_USER
from closedloop.attribute.state import AttributionState, Terms
from closedloop.attribute.tables import Table
from closedloop.errors import ConfigurationError
from closedloop.records.batch import NO_TIME


def rewindow(state: AttributionState, terms: Terms) -> AttributionState:
    """Return a state under other terms from the rows that a state holds.

    Args:
        state: The state as it is.
        terms: The window, model, lateness and history to go on with; tags and conversion type stay.

    Raises:
        ConfigurationError: The tags of an arm, or the conversion type, differ: their events are not in the state.
    """
    for name in ("columns", "conversion_type"):
        if getattr(state.terms, name) != getattr(terms, name):
            mend = "start without state and give the events again"
            raise ConfigurationError(f"rows were kept with another {name}", name, getattr(terms, name), mend)
    rows = state.rows
    whole = _whole_from(state, terms)
    blank = AttributionState.start(terms)
    rows = attrs.evolve(
        rows,
        settled=(rows.is_touch | rows.own_credit) & (rows.cohort_day < whole),
        began=np.full(len(rows), NO_TIME, dtype=np.int64),
        booked=np.zeros(len(rows), dtype=np.bool_),
    )
    context = rows.is_touch & (rows.user != NO_USER) & (rows.day >= whole - terms.window.longest_days)
    leaves = (rows.day < whole) & ~context
    dropped = rows.day[leaves]
    zeros = np.zeros(len(dropped), dtype=np.int64)
    gone = Table.of({"day": dropped}, {"conversions": zeros, "uncredited": zeros, "dropped": zeros + 1, "excess": zeros})
    known = state.days
    nothing = np.zeros(len(known), dtype=np.int64)
    before = attrs.evolve(known, sums={**known.sums, "conversions": nothing, "uncredited": nothing})
    return attrs.evolve(
        blank,
        arms=state.arms,
        rows=rows.take(~leaves),
        days=Table.add([before, gone]),
        late=state.late,
        n_late=state.n_late,
        watermark=state.watermark,
        revision=state.revision + 1,
        currency=state.currency,
        since=whole,
    ).compact()


def _whole_from(state: AttributionState, terms: Terms) -> int:
    """Return the first day that is whole under the terms; all days when no row has left the state."""
    left = state.days.keys["day"][state.days.sums["dropped"] > 0]
    return max(state.since, int(left.max()) + 1 + terms.window.longest_days if len(left) else state.since)
