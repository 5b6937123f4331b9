"""What only the gateway needs, compiled: HTTP, routes, balancing, and the loop over sockets."""
