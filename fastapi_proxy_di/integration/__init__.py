"""Puts upstreams into FastAPI and ASGI apps: routes, the mounted app, dependency, lifespan."""
