"""One visitor's session for one request, and its cookies: what the frameworks share."""
