"""The example package is installed and run in a process of its own, not collected here."""

collect_ignore = ["closedloop-parkbench"]
