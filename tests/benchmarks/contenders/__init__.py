"""One tiny ASGI app per contender; each reads its origin's base URL from `BENCH_ORIGIN`."""
