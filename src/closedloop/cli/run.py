"""``run`` and ``check``: the loop once, on the user's own files, sending nothing."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closedloop.attribute import WindowedAttribution
from closedloop.classify import BayesClassifier
from closedloop.cli.progress import Steps
from closedloop.cli.proposal import as_words, currency_of, decimal_sign, kinds, lacks_zone, proposed, time_format
from closedloop.errors import InputError, MissingColumnError
from closedloop.ingest import PRESETS, TableIngestor
from closedloop.ingest.doors import chunks
from closedloop.ingest.typed import FIELDS
from closedloop.loop import ClosedLoop
from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.decision import Constraints
from closedloop.records.moments import from_us
from closedloop.records.quarantine import Ingested
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

_LOOKED_AT = 10_000  # rows from which a proposal is made
_TELLING = 3  # fewer column names in common could be chance


def _off(text: str) -> str | None:
    return None if text == "off" else text


def _first(path: str, encoding: str, separator: str | None) -> Mapping[str, Any]:
    """Return the first rows of a file as columns."""
    for chunk in chunks(path, encoding=encoding, separator=separator, rows_at_once=_LOOKED_AT):
        return dict(chunk.columns)
    raise InputError("the file has no rows", "FILE", path, "give a file with a header and at least one row")


def _perhaps(
    first: Mapping[str, Any], mapping: Mapping[str, str], values: Mapping[str, Mapping[str, str]], options: argparse.Namespace
) -> str:
    """Return words that would read more of the file, "" when there is nothing to propose."""
    free = [c for c in first if c not in mapping]
    more = proposed(free, {*mapping.values(), *(c for c in free if c in FIELDS)})
    column_of = {field: column for column, field in {**{f: f for f in FIELDS}, **mapping, **more}.items()}
    theirs = column_of["kind"]
    said = {str(word) for word in first[theirs].dropna().unique()} if theirs in first else set()
    words = as_words(more, kinds(said - set(values.get("kind", {}))))
    when = column_of["occurred_at"]
    moments = [] if when not in first else first[when].dropna().tolist()
    form = time_format(moments) if options.time_format is None else None
    if form is not None:
        words += f" --time-format {shlex.quote(form[0])}" + (" (or %m first, if months are written before days)" if form[1] else "")
    if options.zone is None and lacks_zone(moments):
        words += " --zone UTC (or yours, such as Europe/Berlin)"
    amounts = {field: first[column_of[field]].dropna().head(1000).tolist() for field in ("cost", "value") if column_of[field] in first}
    sign = decimal_sign(text for column in amounts.values() for text in column)
    if sign is not None and options.decimal is None:
        words += f" --decimal {sign}"
    if options.currency is None and column_of["currency"] not in first and amounts:
        code = currency_of([column_of[field] for field in amounts], [text for column in amounts.values() for text in column])
        words += f" --currency {code} (or yours)"
    return words.strip()


def ingestor_for(
    options: argparse.Namespace, mapping: dict[str, str], values: dict[str, dict[str, str]], columns: list[str]
) -> TableIngestor:
    """Return the ingestor that the words of the command line and the first file's columns ask for.

    Raises:
        MissingColumnError: No tag column is there to make an arm of.
    """
    preset = options.preset
    if preset is None and not mapping and "kind" not in columns:
        known = sorted((len(p.needs), name) for name, p in PRESETS.items() if p.needs and set(p.needs) <= set(columns))
        if known and known[-1][0] >= _TELLING and (len(known) == 1 or known[-1][0] > known[-2][0]):
            preset = known[-1][1]
    there = {mapping.get(c, c) for c in columns}
    if options.arm is not None:
        tags: TagSchema | None = TagSchema(arm=tuple(name.strip() for name in options.arm.split(",")))
    elif preset is not None:
        tags = None  # the preset's own
    else:
        arm = tuple(c for c in TAG_COLUMNS if c in there)
        if not arm and {"kind", "occurred_at"} <= there:
            mend = "name the column that holds one, such as --map YOUR_COLUMN=campaign"
            raise MissingColumnError(f"no tag column is there; columns: {', '.join(columns)}", "arm", None, mend, TAG_COLUMNS)
        tags = TagSchema(arm=arm) if arm else None
    if preset is not None:
        print(f"preset: {preset}")
    return TableIngestor(
        tags=tags,
        mapping=mapping,
        values=values,
        preset=preset,
        zone=options.zone,
        time_unit=options.time_unit,
        time_format=options.time_format,
        decimal=options.decimal,
        currency=options.currency,
        encoding=options.encoding,
        separator=options.separator,
    )


def _watermark(ingested: Ingested) -> Any:
    """Return the time up to which the files hold data: the loop's own clock for a dry run on the past."""
    if not len(ingested.batch):
        return None
    return from_us(int(max(ingested.batch.recorded_at.max(), ingested.batch.occurred_at.max())))


def run(options: argparse.Namespace, mapping: dict[str, str], values: dict[str, dict[str, str]]) -> None:
    """Read the files, rank, plan without sending, and write the report; ``check`` stops after health."""
    window = AttributionWindow(click=_off(options.window_click), view=_off(options.window_view))
    for path in options.files:
        if not Path(path).exists():
            raise InputError("no such file", "FILE", path, "check the path")
    first = _first(options.files[0], options.encoding, options.separator)
    steps, perhaps = Steps(), _perhaps(first, mapping, values, options)
    try:
        ingestor = ingestor_for(options, mapping, values, list(first))
        with steps.around("reading"):
            ingested = ingestor.ingest(list(options.files), progress=steps.rows)
    except MissingColumnError as error:
        if not perhaps:
            raise
        raise MissingColumnError(error.problem, error.field, None, f"perhaps: {perhaps}", tuple(first)) from error
    print(ingested)
    if len(ingested.quarantine):
        print()
        print(ingested.quarantine)
    now = _watermark(ingested)
    if now is None:
        mend = f"perhaps: {perhaps}" if perhaps else "mend the rows listed above, or map the columns with --map"
        raise InputError("no row was accepted", "FILE", ", ".join(options.files), mend)
    if perhaps and ingestor.preset is None:
        print(f"\nNot all of the file is used. Perhaps: {perhaps}")
    print()
    print(ingested.tags)
    print()
    constraints = Constraints(
        total=getattr(options, "budget", None),
        max_step=getattr(options, "max_step", 0.2),
        minimum_volume=getattr(options, "minimum_volume", 50.0),
    )
    tags = ingestor.tag_schema
    with ClosedLoop(
        window=window,
        ledger=getattr(options, "ledger", None),
        constraints=constraints,
        tags=tags,
        mode="shadow",
        seed=options.seed,
        ingestor=ingestor,
        attribution=WindowedAttribution(window, tags=tags, conversion_type=options.conversion_type, participation=True),
        classifier=BayesClassifier(window, level=options.level, seed=options.seed),
        around=steps.around,
        on_error="raise",  # one look, and nobody comes back tomorrow
    ) as loop:
        report = loop.run_cycle(ingested, now=now)
        if options.command == "check":
            print(report.health)
            return
        for part in (report.outcomes, report.signals, report.plan, report.health):
            print(part)
            print()
        print(report)
        print()
        path = report.save_html(options.report)
    print(f"Nothing was sent. Report: {path}")
    if options.ledger is not None:
        print(f"Ledger: {options.ledger} (cycle {report.cycle})")
