"""Runs uvicorn with Python's garbage collector off, so that counts of instructions repeat."""

import gc

import uvicorn

if __name__ == "__main__":
    gc.disable()
    uvicorn.main()
