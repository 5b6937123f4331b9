"""Stores: the shared truth about sessions. One contract (`base`), one module an engine."""
