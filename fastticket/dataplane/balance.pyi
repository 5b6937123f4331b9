"""Which of a group's servers a request goes to. Its functions are for `upstreams`, in C."""

#: What `Upstreams.add_group` takes as `balance`, and its number.
BALANCES: dict[str, int]
