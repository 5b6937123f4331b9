"""What `fastticket` does on the command line, a module a group of commands."""
