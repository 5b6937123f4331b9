"""Sessions as a process sees them: the near cache, kept in step with the store."""
