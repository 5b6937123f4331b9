"""The compiled core: no asyncio, no configuration."""
