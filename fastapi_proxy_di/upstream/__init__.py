"""Runs one upstream: the public balancer, how its parts are composed, control and status."""
