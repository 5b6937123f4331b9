"""Backends as projects have them."""

from django.contrib.auth.backends import BaseBackend, ModelBackend
from shop.models import Customer


class CustomerBackend(BaseBackend):
    def get_user(self, user_id):
        return Customer.objects.filter(pk=user_id).first()


class LockingBackend(ModelBackend):
    """Accounts of these names are locked: they count no longer, from one request to the next."""

    locked: set[str] = set()  # noqa: RUF012
    asked = 0

    def get_user(self, user_id):
        LockingBackend.asked += 1
        user = super().get_user(user_id)
        return None if user and user.get_username() in self.locked else user
