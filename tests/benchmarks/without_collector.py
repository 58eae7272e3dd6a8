"""Runs uvicorn so that counts of instructions repeat.

Python's garbage collector is off, and the gateway does not watch clients and deadlines: under
valgrind many requests last so long that the gateway would begin to, which is rare without it. For
the same reason it does not beat once a second, where it has a store.
"""

import gc

import uvicorn

from fastapi_proxy_di.cluster import members
from fastapi_proxy_di.forwarding import watcher

if __name__ == "__main__":
    gc.disable()
    vars(watcher)["UNWATCHED_SECONDS"] = 60.0
    vars(members)["BEAT_SECONDS"] = 3600.0
    uvicorn.main()
