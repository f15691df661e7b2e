"""Credits and exposures to cohorts: what is settled for good, and what is restated at every cycle.

Law of this file: a cohort is computed whole from open rows, or taken whole from settled sums; never both.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute.journeys import Credits
from closedloop.attribute.pathbook import DatedPaths, PathBook
from closedloop.attribute.rows import CLICK, CONVERSION, NO_USER, SPEND, Rows
from closedloop.attribute.state import AttributionState, Terms
from closedloop.attribute.tables import ONE, Table
from closedloop.records.arms import IntArray
from closedloop.records.moments import US_PER_DAY
from closedloop.records.money import MICROS
from closedloop.records.window import TOUCH_KINDS, AttributionWindow


def window_bins(window: AttributionWindow, kind: int) -> int:
    """Return how many calendar-day delay bins a conversion inside the window of a touch kind (0 click, 1 view) can fall into."""
    limit = int(window.limits_us()[kind])
    return 0 if limit < 0 else -(-limit // US_PER_DAY) + 1


def delay_bins(terms: Terms, kind: int) -> int:
    """Return the delay bins of a touch kind: those of the window, and ``lateness`` more for conversions written down late."""
    n = window_bins(terms.window, kind)
    return n + terms.lateness if n else 0


@attrs.frozen(kw_only=True, eq=False)
class Entries:
    """Credits with everything that a cohort needs, one entry per credited share.

    Args:
        arm, day, kind, bin: Key of the cohort, and the delay bin in which the conversion was seen.
        credit, credit_squared: In units of 2**-32.
        value: Millionths of the currency; ``value_squared``: squared units of the currency, summed over conversions.
        settled: True where the cohort was settled before.
    """

    arm: IntArray
    day: IntArray
    kind: IntArray
    bin: IntArray
    credit: IntArray
    credit_squared: IntArray
    value: IntArray
    value_squared: npt.NDArray[np.float64]
    settled: npt.NDArray[np.bool_]

    def cohorts(self, mask: npt.NDArray[np.bool_]) -> Table:
        """Return the sums by cohort of the entries in ``mask``."""
        names = ("credit", "credit_squared", "value", "value_squared")
        sums = {"exposures": np.zeros(int(mask.sum()), dtype=np.int64), **{n: getattr(self, n)[mask] for n in names}}
        return Table.of({"arm": self.arm[mask], "day": self.day[mask], "kind": self.kind[mask]}, sums)

    def delays(self, mask: npt.NDArray[np.bool_], group: IntArray) -> Table:
        """Return the credit by day, kind, group of arms and delay bin of the entries in ``mask``; ``group`` is the group of each arm."""
        keys = {"day": self.day[mask], "kind": self.kind[mask], "group": group[self.arm[mask]], "bin": self.bin[mask]}
        return Table.of(keys, {"credit": self.credit[mask]})


def entries_of(rows: Rows, credits: Credits, terms: Terms) -> Entries:
    """Return the credits as entries of cohorts."""
    c, t = credits.conversion, credits.touch
    own = t < 0
    quantity = np.maximum(rows.quantity[c], 1)
    share = credits.weight / ONE
    bins = np.array([max(1, delay_bins(terms, k)) for k in range(len(TOUCH_KINDS))])
    seen_day = np.maximum(rows.seen[c], rows.at[c]) // US_PER_DAY
    return Entries(
        arm=np.where(own, rows.arm[c], rows.arm[t]).astype(np.int64),
        day=credits.day,
        kind=credits.kind,
        bin=np.clip(seen_day - credits.day, 0, bins[credits.kind] - 1),
        credit=credits.weight * rows.quantity[c],
        credit_squared=np.rint(share * share * ONE).astype(np.int64) * rows.quantity[c],
        value=credits.value,
        value_squared=(credits.value / MICROS) ** 2 / quantity,
        settled=np.where(own, rows.settled[c], rows.settled[t]),
    )


def exposures_of(rows: Rows, mask: npt.NDArray[np.bool_]) -> Table:
    """Return the exposures by cohort of the touches in ``mask``."""
    n = int(mask.sum())
    zero = np.zeros(n, dtype=np.int64)
    sums = {"exposures": rows.quantity[mask], "credit": zero, "credit_squared": zero, "value": zero, "value_squared": np.zeros(n)}
    return Table.of({"arm": rows.arm[mask], "day": rows.day[mask], "kind": rows.kind[mask] != CLICK}, sums)


@attrs.frozen(kw_only=True, eq=False)
class Open:
    """What the open rows say now.

    Args:
        cohorts: Sums of the cohorts that are not settled.
        entries: Their credits, one by one; ``is_open`` tells which of them are not settled.
        spend: Open spend by arm and day.
        days: Open conversions by day, and the uncredited among them.
        book: Open journeys, empty for models that look at one journey at a time.
    """

    cohorts: Table
    entries: Entries
    is_open: npt.NDArray[np.bool_]
    spend: Table
    days: Table
    book: PathBook


def closed_before(state: AttributionState) -> int:
    """Return the first day that is still open: no conversion can be written down any more for touches of the days before it."""
    today, terms = state.data_day, state.terms
    return np.iinfo(np.int64).min // 2 if today is None else today - terms.open_days


def settle(state: AttributionState, credits: Credits, group: IntArray, journeys: DatedPaths | None = None) -> tuple[AttributionState, Open]:
    """Return the state with every closed day settled, and what is left open.

    Args:
        state: With all rows in.
        credits: Who is credited with which conversion.
        group: Group of each arm, whose delays are kept apart.
        journeys: For models of whole journeys: those that are not settled.
    """
    terms, rows = state.terms, state.rows
    window_days = terms.window.longest_days
    today, closed = state.data_day, closed_before(state)
    limits = terms.window.limits_us()
    entries = entries_of(rows, credits, terms)
    touch = rows.is_touch & ~rows.settled & (limits[(rows.kind != CLICK).astype(np.int64)] >= 0)
    conversion = rows.kind == CONVERSION
    spend = rows.kind == SPEND
    row_day, cohort_day = rows.day, rows.cohort_day
    credited = np.zeros(len(rows), dtype=np.bool_)
    credited[credits.conversion] = True

    now_closing, still_open = ~entries.settled & (entries.day < closed), ~entries.settled & (entries.day >= closed)
    leaves = np.where(rows.is_touch & (rows.user != NO_USER), row_day < closed - window_days, row_day < closed)
    if leaves.any() or now_closing.any() or (touch & (row_day < closed)).any():
        gone = conversion & leaves
        day_sums = {
            "conversions": np.where(gone, rows.quantity, 0)[leaves],
            "uncredited": np.where(gone & ~credited, rows.quantity, 0)[leaves],
            "dropped": np.ones(int(leaves.sum()), dtype=np.int64),
            "excess": np.zeros(int(leaves.sum()), dtype=np.int64),
        }
        closing_spend = spend & leaves
        flagged = attrs.evolve(rows, settled=rows.settled | ((rows.is_touch | rows.own_credit) & (cohort_day < closed)))
        state = attrs.evolve(
            state,
            rows=flagged.take(~leaves),
            cohorts=Table.add([state.cohorts, exposures_of(rows, touch & (row_day < closed)), entries.cohorts(now_closing)]),
            delays=Table.add([state.delays, entries.delays(now_closing, group)]),
            spend=Table.add([state.spend, _spend(rows, closing_spend)]),
            days=Table.add([state.days, Table.of({"day": row_day[leaves]}, day_sums)]),
        )
    still = PathBook.empty()
    if journeys is not None:
        book = PathBook.of(journeys)
        closes = book.counts.keys["day"] < closed
        still = book.take(~closes)
        if closes.any():
            state = attrs.evolve(state, book=PathBook.add([state.book, book.take(closes)]))
    result = Open(
        cohorts=Table.add([exposures_of(rows, touch & (row_day >= closed)), entries.cohorts(still_open)]),
        entries=entries,
        is_open=still_open,
        spend=_spend(rows, spend & ~leaves),
        days=_conversions(rows, conversion & ~leaves, credited),
        book=still,
    )
    return _expire(state, today, closed), result


def _spend(rows: Rows, mask: npt.NDArray[np.bool_]) -> Table:
    return Table.of({"arm": rows.arm[mask], "day": rows.day[mask]}, {"spend": rows.cost[mask]})


def _conversions(rows: Rows, mask: npt.NDArray[np.bool_], credited: npt.NDArray[np.bool_]) -> Table:
    quantity = rows.quantity[mask]
    return Table.of({"day": rows.day[mask]}, {"conversions": quantity, "uncredited": np.where(credited[mask], 0, quantity)})


def _expire(state: AttributionState, today: int | None, closed: int) -> AttributionState:
    """Return the state without sums older than the kept history, and without keys of late events that can come no more."""
    if today is None:
        return state
    oldest = today - state.terms.history
    forgotten = state.late.keys["day"] < closed
    out = {
        name: table.take(table.keys["day"] >= oldest)
        for name in ("cohorts", "delays", "spend", "days")
        if len(table := getattr(state, name)) and table.keys["day"].min() < oldest
    }
    out_of_book = state.book.counts.keys["day"] < oldest
    if out_of_book.any():
        state = attrs.evolve(state, book=state.book.take(~out_of_book))
    if forgotten.any():
        out["late"] = state.late.take(~forgotten)
    return attrs.evolve(state, **out, n_late=state.n_late + int(forgotten.sum())) if out else state
