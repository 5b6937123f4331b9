"""The gateway: configuration, addresses, the worker, the workers' supervisor, the demo."""
