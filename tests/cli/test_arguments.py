"""The command line explains what is wrong, ends with status 1, and never shows a traceback."""

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest

from closedloop.__main__ import main

GOOD = """event_id,kind,occurred_at,user_id,platform,campaign,cost,value,currency
k1,click,2026-03-01T10:00:00Z,u1,google,spring,,,
k2,click,2026-03-01T11:00:00Z,u2,google,summer,,,
c1,conversion,2026-03-01T12:00:00Z,u1,,,,50,EUR
s1,spend,2026-03-01T23:00:00Z,,google,spring,20,,EUR
s2,spend,2026-03-01T23:00:00Z,,google,summer,20,,EUR
k9,click,2026-03-03T11:00:00Z,u9,google,summer,,,
"""


def run(tmp_path: Path, content: str | bytes, *words: str, name: str = "events.csv", command: str = "run") -> int:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    report = ["--report", str(tmp_path / "report.html")] if command == "run" else []
    return main([command, str(path), *report, *words])


def test_a_good_file_is_ranked_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0, a ranking with intervals, holds that say why, and an HTML report."""
    assert run(tmp_path, GOOD, "--ledger", str(tmp_path / "loop.db")) == 0
    shown = capsys.readouterr().out
    assert "google / spring" in shown
    assert "hold" in shown
    assert "Nothing was sent" in shown
    assert "<html" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "loop.db").stat().st_size > 0


def test_check_stops_after_health(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` reads and looks, plans nothing and writes nothing."""
    assert run(tmp_path, GOOD, command="check") == 0
    shown = capsys.readouterr().out
    assert "Health" in shown
    assert "Plan" not in shown
    assert [p.name for p in tmp_path.iterdir()] == ["events.csv"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "events.csv"),
        ("kind,occurred_at,campaign\n", "no row was accepted"),
        (GOOD.replace("occurred_at", "ts"), "--map ts=occurred_at"),
        (GOOD.replace("kind", "what"), "=kind"),
        ("\x00\x01\x02", "kind"),
        ("kind,occurred_at\nclick,2026-03-01T10:00:00Z\n", "campaign"),
        (GOOD.replace("Z,", ","), "zone"),
        (b"\xff\xfe\x00k\x00i\x00n\x00d" * 3, "encod"),
        (b"PK\x03\x04\x14\x00\x06\x00", "save the sheet as CSV"),
    ],
)
def test_bad_files_name_the_fault_and_the_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes, said: str) -> None:
    """Empty, headless, misnamed, zoneless or undecodable files: one message with the mend, status 1, no traceback."""
    assert run(tmp_path, content) == 1
    out, error = capsys.readouterr()
    assert said in error + out
    assert "Traceback" not in error


def test_a_missing_file_and_unreadable_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that is not there, a window that is none, a map without equals sign."""
    assert main(["run", str(tmp_path / "none.csv")]) == 1
    assert "none.csv" in capsys.readouterr().err
    assert main(["run", str(tmp_path)]) == 1
    assert "a pattern: folder/*.parquet" in capsys.readouterr().err
    assert run(tmp_path, GOOD, "--window-click", "a week") == 1
    assert "7d" in capsys.readouterr().err
    assert run(tmp_path, GOOD, "--map", "ts") == 1
    assert "--map" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["run"])
    assert stop.value.code == 2


def test_bad_rows_are_set_aside_and_the_others_go_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Negative cost, unknown kind, a naive time and a tag of ten million characters: each named, four good rows accepted."""
    bad = (
        "b1,spend,2026-03-01T23:00:00Z,,google,spring,-5,,EUR\n"
        "b2,purchase,2026-03-01T12:00:00Z,u1,,,,50,EUR\n"
        "b3,click,2026-03-01T10:00:00,u1,google,spring,,,\n"
        f"b4,click,2026-03-01T10:00:00Z,u1,google,{'x' * 10_000_000},,,\n"
    )
    assert run(tmp_path, GOOD + bad) == 0
    shown = capsys.readouterr().out
    assert len(shown) < 30_000
    for word in ("cost", "purchase", "zone", "campaign"):
        assert word in shown


def test_ndjson_and_gzip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same events as NDJSON, gzipped, give the same ranking as the CSV."""
    header, *lines = GOOD.strip().split("\n")
    names = header.split(",")
    records = [{n: v for n, v in zip(names, line.split(","), strict=True) if v} for line in lines]
    for record in records:
        record.update({n: float(record[n]) for n in ("cost", "value") if n in record})
    packed = gzip.compress("\n".join(json.dumps(r) for r in records).encode())
    assert run(tmp_path, packed, name="events.ndjson.gz") == 0
    from_ndjson = capsys.readouterr().out.split("Signals")[1].split("Plan")[0]
    assert run(tmp_path, GOOD) == 0
    assert capsys.readouterr().out.split("Signals")[1].split("Plan")[0] == from_ndjson


def test_real_ad_traffic_is_held_for_lack_of_volume(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The four Open Bandit files: wide intervals on rates, no spend, and a hold for every arm."""
    files = sorted(str(p) for p in (shared_data / "open_bandit").glob("*.csv.gz"))
    assert len(files) == 4
    assert main(["run", *files, "--report", str(tmp_path / "report.html")]) == 0
    shown = capsys.readouterr().out
    assert "preset: open_bandit" in shown
    assert "0 moves" in shown
    assert "no_spend" in shown


def test_the_demo_and_the_run_on_its_events_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty-one daily cycles and one look at all the events rank alike, to the last digit shown."""
    assert main(["demo", "--weeks", "3", "--seed", "5", "--out", str(tmp_path / "demo")]) == 0
    demo = capsys.readouterr().out.split("Signals")[1].split("Plan")[0]
    for name in ("report.html", "loop.db", "events.csv"):
        assert (tmp_path / "demo" / name).stat().st_size > 1000
    assert main(["run", str(tmp_path / "demo" / "events.csv"), "--seed", "5", "--report", str(tmp_path / "r.html")]) == 0
    assert capsys.readouterr().out.split("Signals")[1].split("Plan")[0] == demo


def test_demo_refuses_what_it_cannot_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No weeks, or a negative seed: named, status 1."""
    assert main(["demo", "--weeks", "0", "--out", str(tmp_path)]) == 1
    assert "--weeks" in capsys.readouterr().err
    assert main(["demo", "--seed", "-1", "--out", str(tmp_path)]) == 1
    assert "--seed" in capsys.readouterr().err


def test_text_files_of_other_encodings_separators_and_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A semicolon file in Latin-1 with times in whole seconds is read once the words say so; each error names the word."""
    rows = ["kind;occurred_at;user_id;campaign", "click;1772359200;u1;fr\u00fchling", "conversion;1772366400;u1;"]
    content = "\n".join(rows).encode("latin-1")
    assert run(tmp_path, content) == 1
    assert "--encoding" in capsys.readouterr().err
    assert run(tmp_path, content, "--encoding", "latin-1") == 1
    assert run(tmp_path, content, "--encoding", "latin-1", "--time-unit", "s", "--separator", ";") == 0
    assert "fr\u00fchling" in capsys.readouterr().out


def test_words_of_their_own_are_mapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns and kinds of other names are mapped on the command line; a likely column is proposed, and a wrong word explained."""
    theirs = GOOD.replace("platform,campaign", "network,utm_campaign").replace(",click,", ",visit,")
    assert run(tmp_path, theirs) == 1
    said = capsys.readouterr().err
    for word in ("--map network=platform", "--map utm_campaign=campaign"):
        assert word in said
    words = ("--map", "utm_campaign=campaign", "--map", "network=platform", "--value", "kind:visit=click")
    assert run(tmp_path, theirs, *words) == 0
    assert "google / spring" in capsys.readouterr().out
    assert run(tmp_path, theirs, "--value", "visit=click") == 1
    assert "kind:purchase=conversion" in capsys.readouterr().err


def test_a_terminal_is_told_what_is_being_done(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal rows read and rooms entered are said on standard error and cleared at the end; a pipe gets none of it."""
    assert run(tmp_path, GOOD) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert run(tmp_path, GOOD) == 0
    said = capsys.readouterr().err
    steps = [part.strip() for part in said.split("\r") if part.strip()]
    assert any(step.startswith("read 6 rows") for step in steps)
    rooms = ["reading", "execute", "ingest", "attribute", "classify", "health", "decide"]
    assert [step.split(" ...")[0] for step in steps if " ..." in step] == rooms
    assert said.endswith("\r")


def test_a_strangers_file_is_read_with_the_words_that_are_proposed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first try names every word that is needed; given them as they are, the second try ranks the file."""
    lines = ["time,event,campaign_name,client,amount_spent"]
    for day in range(1, 15):
        lines.append(f"2026-03-{day:02d} 08:00:00,spend,spring sale,,40")
        lines += [f"2026-03-{day:02d} 09:{m:02d}:00,visit,spring sale,u{day}-{m}," for m in range(30)]
        lines.append(f"2026-03-{day:02d} 12:00:00,Purchase,,u{day}-3,")
    theirs = "\n".join(lines)
    assert run(tmp_path, theirs) == 1
    proposed = capsys.readouterr().err.split("perhaps: ")[1]
    words = shlex.split(re.sub(r"\([^)]*\)", "", proposed))
    assert run(tmp_path, theirs, *words) == 0
    shown = capsys.readouterr().out
    assert "14 conversions" in shown
    assert "spring sale" in shown
    assert "EUR" in shown
    assert "Perhaps" not in shown
    assert run(tmp_path, theirs, *words[:-2]) == 0
    assert "Perhaps: --currency EUR" in capsys.readouterr().out


def test_an_export_with_commas_and_days_first_is_read_with_the_words_that_are_proposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Semicolons, a sign of currency before amounts with a decimal comma, times as in Berlin: one proposal reads it all, to the cent."""
    lines = ["\ufeffDate/Time;Event;Network;Campaign name;Customer ID;Spend (EUR);Revenue"]
    for day in range(1, 15):
        lines.append(f"{day:02d}.03.2026 08:00;Cost;Meta;spring;;€ 1.040,50;")
        lines += [f"{day:02d}.03.2026 09:{m:02d};Click;Meta;spring;u{day}-{m};;" for m in range(30)]
        lines.append(f"{day:02d}.03.2026 12:00;Purchase;;;u{day}-3;;79,90")
    theirs = "\n".join(lines)
    assert run(tmp_path, theirs) == 1
    proposed = capsys.readouterr().err.split("perhaps: ")[1]
    words = shlex.split(re.sub(r"\(or[^)]*\)", "", proposed).replace("UTC", "Europe/Berlin"))
    assert run(tmp_path, theirs, *words) == 0
    shown = capsys.readouterr().out
    assert "quarantined" not in shown.split("duplicates")[0] or re.search(r"quarantined +0", shown)
    assert re.search(r"Meta +spring +420 +0 +14,567 +14 ", shown)  # clicks, views, spend, credit
    assert "1,119" in shown  # 14 times 79.90
