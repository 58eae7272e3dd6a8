python -m flask --app flask_app run --port 9001
