python -m uvicorn fastapi_app:app --port 9001 --root-path /shop
