"""Traces of two chained gateways and a FastAPI origin, as a receiver of OTLP gets them."""
