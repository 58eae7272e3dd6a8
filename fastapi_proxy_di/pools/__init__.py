"""Live state of an upstream: its destinations and the pool that holds them."""
