"""What a debug build knows of the locks that a thread holds."""

def check_free(what: str) -> None:
    """For tests: end the process, with a line that says `what`, if this thread holds a lock."""
