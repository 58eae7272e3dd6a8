DJANGO_SETTINGS_MODULE=shop.settings python -m gunicorn --bind 127.0.0.1:9001 \
    'django.core.wsgi:get_wsgi_application()'
