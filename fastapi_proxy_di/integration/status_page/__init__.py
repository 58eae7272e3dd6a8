"""The status router: the state of all upstreams as a page and as data, and its actions."""
