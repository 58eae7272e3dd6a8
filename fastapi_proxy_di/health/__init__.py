"""Decides on the health of destinations: probe thresholds, ejection, slow start."""
