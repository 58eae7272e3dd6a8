"""Decides on the health of destinations: thresholds, ejection with its windows, slow start."""
