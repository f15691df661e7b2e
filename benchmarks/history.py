"""Keep the figures that pages quote: one line each in benchmarks/history.csv, appended and never edited.

    python benchmarks/history.py classify "1M arm-days" 2.4 "x bare arrays"
    python benchmarks/history.py                                    # prints the newest of each as the table of the comparison page

A line has the day, the commit, the benchmark, what was measured, the figure, and its unit with the machine's load left out: ratios travel
between machines, seconds do not. What was measured on more seeds than before replaces what was measured on fewer; a line without a figure
ends a thing that is not measured any more.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

FILE = Path(__file__).with_name("history.csv")
SEEDS = re.compile(r" \((1 seed|(median|mean) of \d+ seeds)\)$")
COLUMNS = ("date", "commit", "benchmark", "what", "figure", "unit")


def append(benchmark: str, what: str, figure: float, unit: str, file: Path = FILE) -> None:
    """Append one figure with today's date and the commit that is checked out."""
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=file.parent, capture_output=True, text=True, check=False)
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([datetime.now(UTC).date(), asked.stdout.strip() or "unknown", benchmark, what, figure, unit])


def table(file: Path = FILE) -> str:
    """Return the newest figure of each thing measured, as a table in Markdown."""
    with file.open(encoding="utf-8") as lines:
        newest = {(line["benchmark"], SEEDS.sub("", line["what"])): line for line in csv.DictReader(lines)}
    rows = ["| command | what | figure | measured |", "|---|---|---|---|"]
    for (benchmark, _), line in sorted(newest.items(), key=lambda item: item[0][0]):
        what = line["what"]
        if not line["figure"]:
            continue
        figure = f"{float(line['figure']):,g} {line['unit']}"
        rows.append(f"| `python benchmarks/{benchmark}.py` | {what} | {figure} | {line['date']}, {line['commit']} |")
    return "\n".join(rows)


def main() -> None:
    words = sys.argv[1:]
    if len(words) == 4:
        append(words[0], words[1], float(words[2]), words[3])
    elif words:
        raise SystemExit(__doc__)
    print(table())


if __name__ == "__main__":
    main()
