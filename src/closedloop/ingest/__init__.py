"""Ingestion: meaning attached, nothing lost."""
