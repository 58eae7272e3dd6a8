"""Reads and writes HTTP as bytes: headers, targets, addresses, forwarding headers. Pure."""
