FROM python:3.13-slim
RUN pip install --no-cache-dir 'fastapi-proxy-di[cli]'
USER nobody
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", \
     "from urllib.request import urlopen; urlopen('http://127.0.0.1:9900/status.json', timeout=2)"]
ENTRYPOINT ["fastapi-proxy-di", "serve", "--host", "0.0.0.0", "--port", "8000", "--status", "9900"]
CMD ["billing"]
