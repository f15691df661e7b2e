"""The words of the command line, and the one place where an error becomes an exit status.

Law of this file: an error of the library is one message on standard error and status 1, a wrong word is status 2, an interrupt
is 130; a traceback never reaches the user.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from closedloop import __version__
from closedloop.errors import ClosedLoopError, ConfigurationError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m closedloop",
        description="Closed-loop marketing optimisation with an honest interval on every decision. Without a command: demo.",
    )
    parser.add_argument("--version", action="version", version=f"closedloop {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="{demo,run,check}")

    demo = commands.add_parser("demo", help="run the loop on a simulated market with known truth")
    demo.add_argument("--weeks", type=int, default=10, help="simulated weeks (default 10)")
    demo.add_argument("--seed", type=int, default=7, help="seed of market, platform and loop (default 7)")
    demo.add_argument("--out", type=Path, default=Path("closedloop-demo"), help="folder for report, ledger and events")

    for name, text in (
        ("run", "rank and plan once on your own events; sends nothing"),
        ("check", "read your events and check health only"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("files", nargs="+", metavar="FILE", help="CSV, Parquet or NDJSON, plain or gzipped")
        command.add_argument("--window-click", default="7d", help="attribution window for clicks, such as 7d, or off (default 7d)")
        command.add_argument("--window-view", default="1d", help="attribution window for views, such as 1d, or off (default 1d)")
        command.add_argument(
            "--map", action="append", default=[], metavar="COLUMN=FIELD", help="your column and the field it holds; repeat as needed"
        )
        command.add_argument(
            "--value",
            action="append",
            default=[],
            metavar="FIELD:THEIRS=OURS",
            help="your word in a field and ours, such as kind:sale=conversion",
        )
        command.add_argument("--preset", help="a known export, such as open_bandit (found from the columns where possible)")
        command.add_argument("--zone", help="time zone of times without one, such as Europe/Berlin")
        command.add_argument("--time-unit", choices=("s", "ms", "us", "ns"), help="what whole-number times count since 1970")
        command.add_argument("--time-format", help="how times are written, such as '%%d.%%m.%%Y %%H:%%M' (default: ISO 8601)")
        command.add_argument(
            "--decimal", choices=(".", ","), help="decimal sign of amounts with a currency or groups, such as 1.234,50 EUR"
        )
        command.add_argument("--currency", help="the one currency to keep, such as EUR (default: the one the rows have)")
        command.add_argument("--encoding", default="utf-8", help="encoding of text files (default utf-8)")
        command.add_argument("--separator", help="separator of CSV files (default: found from the header)")
        command.add_argument("--arm", help="tag columns that make an arm, comma separated (default: those the file has)")
        command.add_argument("--conversion-type", help="optimise one conversion type (default: all count)")
        command.add_argument("--level", type=float, default=0.9, help="level of the intervals (default 0.9)")
        command.add_argument("--seed", type=int, default=0, help="seed of posterior draws (default 0)")
        if name == "run":
            command.add_argument("--budget", type=float, help="total budget a day (default: what was spent)")
            command.add_argument("--max-step", type=float, default=0.2, help="largest relative change of a budget (default 0.2)")
            command.add_argument("--minimum-volume", type=float, default=50.0, help="conversions a week a campaign needs (default 50)")
            command.add_argument("--ledger", type=Path, help="SQLite ledger to record the cycle in (default: none)")
            command.add_argument("--report", type=Path, default=Path("closedloop-report.html"), help="HTML report to write")
    return parser


def mapping_of(pairs: Sequence[str]) -> dict[str, str]:
    """Return ``{"their column": "our field"}`` from COLUMN=FIELD words.

    Raises:
        ConfigurationError: A word has no equals sign.

    >>> mapping_of(["ts=occurred_at"])
    {'ts': 'occurred_at'}
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        column, equals, field = pair.rpartition("=")
        if not (equals and column and field):
            raise ConfigurationError("not a mapping", "--map", pair, "write your column, =, and our field, such as --map ts=occurred_at")
        mapping[column] = field
    return mapping


def values_of(words: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return ``{"our field": {"their value": "our value"}}`` from FIELD:THEIRS=OURS words.

    Raises:
        ConfigurationError: A word has no colon or no equals sign.

    >>> values_of(["kind:purchase=conversion", "kind:view=impression"])
    {'kind': {'purchase': 'conversion', 'view': 'impression'}}
    """
    values: dict[str, dict[str, str]] = {}
    for word in words:
        field, colon, rest = word.partition(":")
        theirs, equals, ours = rest.rpartition("=")
        if not (colon and equals and field and theirs and ours):
            raise ConfigurationError(
                "not a value", "--value", word, "write our field, :, your word, =, and ours, such as --value kind:purchase=conversion"
            )
        values.setdefault(field, {})[theirs] = ours
    return values


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 an error that was explained, 2 wrong words, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if not words or (words[0].startswith("--") and words[0] not in ("--help", "--version")):
        words.insert(0, "demo")
    options = parser.parse_args(words)
    try:
        if options.command == "demo":
            from closedloop.cli.demo import demo

            demo(weeks=options.weeks, seed=options.seed, out=options.out)
        else:
            from closedloop.cli.run import run

            run(options, mapping_of(options.map), values_of(options.value))
    except ClosedLoopError as error:
        print(f"closedloop: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"closedloop: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("closedloop: interrupted; everything recorded so far is kept in the ledger", file=sys.stderr)
        return 130
    return 0
