"""A visitor's session for the length of one request, and its cookies: what the frameworks share.

visitor         Visitor: what a request says about its sender
session         WebSession: the session as the application sees it, and its writes to the store
mapping         SessionMapping: the methods of a `dict` that a WebSession has
nested          NestedChanges: what changes within a visitor's list or dictionary
caches          what a WebSession asks of a ticket cache: that of asyncio, or that of threads
acts            what is awaited in a request's event loop, and done at once in a thread
opening         CacheOpening: opens the cache of an asyncio application
adapter         AdaptedSession: for an asyncio framework that is not ASGI
outcome         the rule of server errors, and the 503 of a store that does not answer
reply           SessionReply: the fields that a session adds to its response
cookies         TicketCookie: finds the ticket in a Cookie field, makes Set-Cookie values
hosts           the names of a Host, and the domains above it
readyourwrites  SeenVersion: read your writes (P11)
"""
