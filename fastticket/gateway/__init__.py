"""The gateway around the data plane: its configuration, and the processes that serve.

configuration  settings (what it is), reader (of TOML), linkis (of Linkis' files), linkisfiles
               (several as one), properties (that format), rules (allowed values), routing (the
               route of a path, for rules and checks), addresses (as they are written), problems
               (what is wrong, collected), writer (to TOML), checks (keys and the machine)
supervisor     supervisor, generation, processes, forking, listeners, changes (which need a new
               process), totals (of workers' counters), exitcodes
worker         worker (what outlives a reload), services, service (what serves one configuration),
               leaving, asks (answers to the data plane's), exemption (paths without a ticket),
               assembly, upstreams, health, notices, notes, pacing (of closing WebSockets),
               descriptors (how many clients fit)
between them   inheritance (at the fork), channel and control (messages), sharedmemory (counters,
               notes), handover (clients)
both sides     binding (of listening sockets), lookups (of names), linewriter (of both logs' lines)
operators      admin, snapshot, metrics, errorlog, logfile, systemd
"""
