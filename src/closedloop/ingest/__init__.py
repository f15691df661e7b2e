"""Ingestion: raw rows become events, with meaning attached and nothing lost."""

from closedloop.ingest.ingestor import TableIngestor
from closedloop.ingest.keeping import load_quarantine, save_quarantine
from closedloop.ingest.presets import PRESETS, Preset
from closedloop.ingest.schema import event_schema
from closedloop.ingest.settling import settle

__all__ = ["PRESETS", "Preset", "TableIngestor", "event_schema", "load_quarantine", "save_quarantine", "settle"]
