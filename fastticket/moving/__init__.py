"""Moving sessions: from other systems' formats into this one."""
