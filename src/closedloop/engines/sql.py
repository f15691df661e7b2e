"""The reduction of events in SQL, once for every engine; the engines differ in how they join codes and skip matched rows.

Law of this file: it means what the numpy reduction means, boundaries and ties included (``closedloop.attribute.journeys``): a conversion at
``t`` may be credited to a touch at ``s`` of the same user when ``0 <= t - s <= window`` of the touch's kind. Queries read a table
``events`` and name nothing else that is not defined in them.
"""

from __future__ import annotations

import attrs

from closedloop.records.moments import US_PER_DAY
from closedloop.records.window import AttributionWindow

PATH_COLUMNS = ("user_id", "kind", "at", "channel", "value", "tie")
COHORT_COLUMNS = ("user_id", "kind", "at", "recorded_at", "channel", "value", "tie")


@attrs.frozen(kw_only=True)
class Dialect:
    """What differs between engines.

    Args:
        joined: Text of the codes of a group in order of moment and tie, joined by commas.
        anti: The join that keeps rows without a match.
        division: Whole-number division by ``{n}`` of ``{x}``, rounding towards minus infinity for times from 1970 on.
    """

    joined: str
    anti: str
    division: str


DUCKDB = Dialect(joined="string_agg(code, ',' ORDER BY moment, tie)", anti="ANTI JOIN", division="({x} // {n})")
SPARK = Dialect(
    joined="array_join(transform(array_sort(collect_list(struct(moment, tie, code))), x -> cast(x.code AS STRING)), ',')",
    anti="LEFT ANTI JOIN",
    division="({x} DIV {n})",
)


def _numbers(window: AttributionWindow) -> tuple[int, int, int]:
    limits = window.limits_us()
    return int(limits[0]), int(limits[1]), int(limits.max())


def paths_query(window: AttributionWindow, until: int, dialect: Dialect, *, events: str, channels: str) -> str:
    """Return the query that gives path, conversions, value and nulls of every journey of users, summed by path.

    Args:
        window: The attribution window.
        until: Microseconds up to which the data are complete.
        dialect: Of the engine.
        events: Name of a relation with user_id, kind, moment, channel, value, tie; only rows with a user are read.
        channels: Name of a relation with channel and code.
    """
    click, view, longest = _numbers(window)
    limit = f"CASE WHEN kind = 'click' THEN {click} ELSE {view} END"
    stretch = dialect.division.format(x="since", n=longest + 1)
    return f"""
WITH e AS (SELECT * FROM {events} WHERE user_id IS NOT NULL),
t AS (SELECT e.user_id, moment, tie, code, {limit} AS window_us FROM e JOIN {channels} AS k ON e.channel = k.channel
      WHERE kind IN ('click', 'impression') AND {limit} >= 0),
c AS (SELECT user_id, tie AS journey, moment, coalesce(value, 0) AS value FROM e WHERE kind = 'conversion'),
pairs AS (SELECT c.journey, t.user_id, t.moment, t.tie, t.code FROM c JOIN t
          ON c.user_id = t.user_id AND t.moment <= c.moment AND c.moment - t.moment <= t.window_us),
answered AS (SELECT DISTINCT user_id, tie FROM pairs),
won AS (SELECT journey, {dialect.joined} AS path FROM pairs GROUP BY journey),
lost AS (SELECT t.*, lag(t.moment) OVER (PARTITION BY t.user_id ORDER BY t.moment, t.tie) AS previous
         FROM t {dialect.anti} answered ON t.user_id = answered.user_id AND t.tie = answered.tie WHERE t.moment + {longest} < {until}),
begun AS (SELECT *, sum(CASE WHEN previous IS NULL OR moment - previous > {longest} THEN 1 ELSE 0 END)
                 OVER (PARTITION BY user_id ORDER BY moment, tie ROWS UNBOUNDED PRECEDING) AS run FROM lost),
cut AS (SELECT *, moment - min(moment) OVER (PARTITION BY user_id, run) AS since FROM begun),
null_paths AS (SELECT {dialect.joined} AS path FROM cut GROUP BY user_id, run, {stretch}),
all_paths AS (SELECT coalesce(path, '') AS path, 1 AS conversions, value, 0 AS nulls FROM c LEFT JOIN won ON c.journey = won.journey
              UNION ALL SELECT path, 0, 0, 1 FROM null_paths)
SELECT path, CAST(sum(conversions) AS DOUBLE) AS conversions, CAST(sum(value) AS DOUBLE) AS value, CAST(sum(nulls) AS DOUBLE) AS nulls
FROM all_paths GROUP BY path
"""


def bare_query(events: str) -> str:
    """Return the query that counts conversions without a user, as journeys without touches."""
    sums = "CAST(count(*) AS DOUBLE) AS conversions, CAST(coalesce(sum(value), 0) AS DOUBLE) AS value, CAST(0 AS DOUBLE) AS nulls"
    return f"SELECT '' AS path, {sums} FROM {events} WHERE kind = 'conversion' AND user_id IS NULL HAVING count(*) > 0"


def total_query(found: str) -> str:
    """Return the query that adds the counts of equal paths."""
    return (
        f"SELECT path, sum(conversions) AS conversions, sum(value) AS value, sum(nulls) AS nulls FROM {found} GROUP BY path ORDER BY path"
    )


def cohorts_query(window: AttributionWindow, dialect: Dialect, *, events: str) -> str:
    """Return the query that gives exposures and last-touch credit by channel, touch day, kind of touch and delay in days.

    The last click inside its window beats any view. Delays are calendar days between the touch and the moment the conversion was recorded;
    rows of exposures have delay -1.

    Args:
        window: The attribution window.
        dialect: Of the engine.
        events: Name of a relation with user_id, kind, moment, recorded, channel, value, tie.
    """
    click, view, _ = _numbers(window)
    limit = f"CASE WHEN kind = 'click' THEN {click} ELSE {view} END"
    day = dialect.division.format(x="moment", n=US_PER_DAY)
    touched, seen = (dialect.division.format(x=x, n=US_PER_DAY) for x in ("t_moment", "recorded"))
    return f"""
WITH t AS (SELECT user_id, moment, tie, channel, kind, CASE WHEN kind = 'click' THEN 0 ELSE 1 END AS view, {limit} AS window_us
           FROM {events} WHERE kind IN ('click', 'impression') AND {limit} >= 0),
c AS (SELECT user_id, tie AS journey, moment, greatest(recorded, moment) AS recorded, coalesce(value, 0) AS value
      FROM {events} WHERE kind = 'conversion' AND user_id IS NOT NULL),
ranked AS (SELECT c.recorded, c.value, t.channel, t.moment AS t_moment, t.view,
                  row_number() OVER (PARTITION BY c.journey ORDER BY t.view, t.moment DESC, t.tie DESC) AS place
           FROM c JOIN t ON c.user_id = t.user_id AND t.moment <= c.moment AND c.moment - t.moment <= t.window_us),
credited AS (SELECT channel, {touched} AS day, view, {seen} - {touched} AS delay, value FROM ranked WHERE place = 1),
every AS (SELECT channel, {day} AS day, view, -1 AS delay, 1 AS exposures, 0 AS credit, 0 AS value FROM t
          UNION ALL SELECT channel, day, view, delay, 0, 1, value FROM credited)
SELECT channel, CAST(day AS BIGINT) AS day, view AS kind, CAST(delay AS BIGINT) AS delay, CAST(sum(exposures) AS DOUBLE) AS exposures,
       CAST(sum(credit) AS DOUBLE) AS credit, CAST(sum(value) AS DOUBLE) AS value
FROM every GROUP BY channel, day, view, delay
"""
