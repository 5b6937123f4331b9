"""The commands of `fastticket`, one module for each group; `cli` has all of their options."""
