class ComparedCookies:
    """Which cookies of another system came with which session. MemoryError."""
