"""Customers."""

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models


class Customer(AbstractBaseUser):
    """Their names are their own affair: one may be called as the superuser."""

    name = models.CharField(max_length=250, unique=True)
    USERNAME_FIELD = "name"
