"""Decisions about which destination an attempt goes to: policies and selection."""
