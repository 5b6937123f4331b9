"""The coherence protocol as a model that a machine explores: `check.py` says how to run it.

store.py      what the scripts do with one shard: the plain twin of the Lua
protocol.py   states, and the moves from each: gateways, messages, the store's failover, time
promises.py   what must hold in every state
scopes.py     what may happen in a search, and how often
explore.py    the search: breadth first, so that a counterexample is a shortest one
faults.py     faults put back, each of which must be found
"""
