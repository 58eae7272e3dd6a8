"""Decides which destination an attempt goes to: policies, selection, affinity, hash keys."""
