"""An in-app gateway for FastAPI: reverse proxy, load balancer, injectable upstreams."""

__version__ = "0.1.0"
