"""What a gateway shows operators, and lets them change: the admin listener.

listener      reads requests, writes answers; probes and /metrics
access        who may ask
dispatch      finds a request's operation, checks it, runs it, notes changes
operations    the one table of all operations, of which `openapi` makes the document
status, configuration, sessions, keys, upstreams, events    the operations themselves
audit         the log of changes

It runs in the supervisor (`gateway.Gateway` is what it knows of that). What the supervisor does not
have, sessions above all, is asked of the worker (`gateway/inquiries.py`), never waiting long.
"""
