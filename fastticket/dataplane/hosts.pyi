"""The host that a request is for. Only the data plane uses it; nothing is here for Python."""
