"""Holds the live state of an upstream: its destinations and their snapshots."""
