FROM python:3.13-slim
RUN pip install --no-cache-dir 'fastapi-proxy-di[cli]'
USER nobody
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", \
     "from socket import create_connection; create_connection(('127.0.0.1', 8000), 2)"]
ENTRYPOINT ["fastapi-proxy-di", "serve", "--host", "0.0.0.0", "--port", "8000", "--workers", "4"]
CMD ["billing"]
