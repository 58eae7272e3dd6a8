GF_SERVER_HTTP_PORT=9001 GF_SERVER_ROOT_URL=https://gateway.example/shop/ \
    GF_SERVER_SERVE_FROM_SUB_PATH=true grafana server
