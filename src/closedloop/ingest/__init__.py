"""Ingestion: raw rows become events, with meaning attached and nothing lost."""

from closedloop.ingest.ingestor import TableIngestor
from closedloop.ingest.presets import PRESETS, Preset
from closedloop.ingest.schema import event_schema

__all__ = ["PRESETS", "Preset", "TableIngestor", "event_schema"]
