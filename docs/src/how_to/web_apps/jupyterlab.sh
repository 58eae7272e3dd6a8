python -m jupyterlab --no-browser --port 9001 --ServerApp.base_url=/shop/ \
    --ServerApp.allow_remote_access=True --IdentityProvider.token=s3cret
