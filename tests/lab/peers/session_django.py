"""The project of django_application.py, for gunicorn."""

import django_application

application = django_application.wsgi()
