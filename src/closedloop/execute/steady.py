"""A time axis that does not jump when the wall clock does.

Law of this file: quotas and quiet periods are promises about time that has really passed. ``now`` comes from outside and may jump;
seconds from a clock that never jumps say how much of its change to believe. What was not believed is the *offset*, kept in the
ledger, so that times recorded before and after a restart lie on one axis.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from closedloop.errors import InvariantError
from closedloop.records.moments import to_us

TOLERANCE = timedelta(seconds=1)  # smaller differences are how clocks are kept in step, and are believed


class SteadyClock:
    """Turn the caller's ``now`` into time that passes evenly.

    Args:
        monotonic: Returns seconds that never jump, such as `time.monotonic`; None believes every ``now``.

    >>> from datetime import UTC
    >>> seconds = iter([10.0, 20.0, 20.0, 25.0])
    >>> clock, noon = SteadyClock(lambda: next(seconds)), datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> clock.begin(noon), clock.begin(noon + timedelta(hours=1))  # ten seconds have passed, whatever the wall clock says
    (False, True)
    >>> clock.moment().time(), clock.offset
    (datetime.time(12, 0, 10), datetime.timedelta(seconds=3590))
    >>> clock.moment().time()
    datetime.time(12, 0, 15)
    """

    def __init__(self, monotonic: Callable[[], float] | None = None) -> None:
        self._monotonic = monotonic
        self.offset = timedelta(0)
        self._steady: datetime | None = None  # at the beginning of the present tick
        self._last: datetime | None = None
        self._seconds = 0.0

    def resume(self, offset: timedelta, last: datetime | None) -> None:
        """Go on where another process stopped: its offset, and the last time on the axis that is recorded."""
        self.offset = offset
        self._last = last

    @property
    def has_begun(self) -> bool:
        """Whether a tick has begun in this process."""
        return self._steady is not None

    def seconds(self) -> float:
        """Return the seconds now; read them first thing when ``now`` comes in, since the two belong together."""
        return 0.0 if self._monotonic is None else self._monotonic()

    def begin(self, now: datetime, seconds: float | None = None) -> bool:
        """Begin a tick; return whether the offset has changed, so that it must be recorded.

        Args:
            now: The caller's time.
            seconds: What `seconds` said when ``now`` came in, None for this moment.
        """
        to_us(now)
        if self._monotonic is None:
            self._steady = now
            return False
        seconds = self._monotonic() if seconds is None else seconds
        steady = now - self.offset
        if self._steady is not None:
            expected = self._steady + timedelta(seconds=seconds - self._seconds)
            jumped = abs(steady - expected) > TOLERANCE
        else:  # nothing is known of the time between two processes but that it did not go back
            expected = self._last if self._last is not None else steady
            jumped = steady < expected - TOLERANCE
        if jumped:
            self.offset += steady - expected
            steady = expected
        self._steady = steady if self._steady is None else max(steady, self._steady)
        self._seconds = seconds
        return jumped

    def moment(self) -> datetime:
        """Return the present time on the axis, within a tick."""
        if self._steady is None:
            raise InvariantError("no tick has begun")
        if self._monotonic is None:
            return self._steady
        return self._steady + timedelta(seconds=max(0.0, self._monotonic() - self._seconds))

    def wall(self, at: datetime | None) -> datetime | None:
        """Return a time on the axis as the caller's clock will show it."""
        return None if at is None else at + self.offset
