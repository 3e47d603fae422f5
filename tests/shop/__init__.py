"""A Django app, whose models are what the tests and benchmarks cache instances of."""
