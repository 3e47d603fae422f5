"""The models: plain ones, and one of each kind that Django pickles otherwise."""

from __future__ import annotations

from typing import Any

from django.db import models


class Customer(models.Model):
    """With few fields."""

    name = models.CharField(max_length=100)
    score = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.name

    @property
    def broken(self) -> str:
        """Nobody may ask for it."""
        raise AssertionError


class Order(models.Model):
    """With twelve fields, as many of a shop's have."""

    number = models.CharField(max_length=20)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    reference = models.UUIDField(null=True)
    total = models.DecimalField(max_digits=9, decimal_places=2)
    paid = models.BooleanField(default=False)
    created = models.DateTimeField()
    due = models.DateField(null=True)
    weight = models.FloatField(default=0)
    pieces = models.IntegerField(default=1)
    note = models.TextField(blank=True)
    city = models.CharField(max_length=100, blank=True)

    def __str__(self) -> str:
        return self.number


class Urgent(Order):
    """Inherits by tables."""

    hours = models.IntegerField(default=24)


class Shown(Customer):
    """Inherits nothing but Python code."""

    class Meta:
        proxy = True


class Mixin:
    """Is no model."""

    def shout(self) -> str:
        return str(self).upper()


class Base(models.Model):
    """Has no table."""

    label = models.CharField(max_length=100)

    class Meta:
        abstract = True


class Tag(Mixin, Base):
    """Inherits from both."""

    customers = models.ManyToManyField(Customer, related_name="tags")


class Image(models.Model):
    """Has bytes, and a field with a descriptor of its own."""

    data = models.BinaryField(null=True)
    file = models.FileField(blank=True)


class Counted(models.Model):
    """Says itself how it is pickled."""

    name = models.CharField(max_length=100)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "counted": 1}


class Restored(models.Model):
    """Says itself how it is unpickled."""

    name = models.CharField(max_length=100)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "restored": 1})  # type: ignore[misc]


class Reduced(models.Model):
    """Is made by another function."""

    name = models.CharField(max_length=100)

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.pk, self.name)


class Strange(models.Model):
    """Finds its attributes by code of its own, and ends by some."""

    name = models.CharField(max_length=100)

    def __getattribute__(self, name: str) -> Any:
        return super().__getattribute__(name)

    def __del__(self) -> None:
        pass


class Made(models.Model):
    """Makes its instances itself."""

    name = models.CharField(max_length=100)

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return super().__new__(cls)
