GRADIO_ROOT_PATH=/shop GRADIO_SERVER_PORT=9001 python gradio_app.py
