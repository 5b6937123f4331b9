from typing import final

@final
class ComparedCookies:
    """Which cookies of another system have come with which session. MemoryError."""
