"""Django's tests of a session engine, for ours: of a visitor who is not logged in, and of one who
is.
"""

from django.contrib.auth.models import User
from django.test import TestCase
from sessions_tests.tests import SessionTestsMixin

from fastticket.django import ticket_cache
from fastticket.django.sessions import SessionStore


class AnonymousTests(SessionTestsMixin, TestCase):
    """The session is the signed cookie."""

    backend = SessionStore


class TicketTests(SessionTestsMixin, TestCase):
    """The session is that of a ticket."""

    @staticmethod
    def backend(session_key=None):
        return SessionStore(session_key or ticket_cache().login("alice"))

    def setUp(self):
        User.objects.create_user("alice")
        super().setUp()
