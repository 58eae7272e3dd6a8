"""Runs uvicorn so that counts of instructions repeat.

Python's garbage collector is off, and the gateway does not watch clients and deadlines: under
valgrind many requests last so long that the gateway would begin to, which is rare without it.
"""

import gc

import uvicorn

from fastapi_proxy_di.forwarding import watcher

if __name__ == "__main__":
    gc.disable()
    vars(watcher)["UNWATCHED_SECONDS"] = 60.0
    uvicorn.main()
