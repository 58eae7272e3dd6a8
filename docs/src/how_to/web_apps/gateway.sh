python -m uvicorn gateway:app --port 8000 --timeout-graceful-shutdown 10
