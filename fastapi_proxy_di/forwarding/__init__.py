"""Carries one exchange to its response: attempt, retry loop, hedging, admission, tunnel."""
