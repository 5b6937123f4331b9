"""The gateway around the data plane: its configuration, and the processes that serve.

configuration  settings (what it is), reader (of TOML), rules and migrationrules (allowed values),
               routing (the route of a path, for rules and checks), addresses (as they are written),
               problems (what is wrong, collected), writer (to TOML), checks (keys and the machine);
               linkis (of Linkis' files), linkisfiles (several as one), properties (that format)
supervisor     supervisor, generation, processes, forking, listeners, changes (which need a new
               process), upgrade (of the program), reloads (what came of them), totals (of workers'
               counters), exitcodes
worker         worker (what outlives a reload), services, service (what serves one configuration),
               driving (of a data plane), leaving, asks (answers to the data plane's), exemption
               (paths without a ticket), tokens and passes (of programs), migration (sessions of
               another system), assembly, upstreams, health, knocking, drains, notices, notes,
               pacing (of closing WebSockets), descriptors (how many clients fit)
between them   inheritance (at the fork), channel and control (messages), inquiries (what operators
               ask of a worker), sharedmemory (counters, notes), handover (clients)
both sides     binding (of listening sockets), lookups (of names), linewriter (of both logs' lines)
the fleet      identity (which gateway this is), register (this one's entry, and the others')
operators      admin (listener, API, page), snapshot, metrics, procfs, tracing, errorlog, logfile,
               systemd
"""
