"""The gateway around the data plane: its configuration, and the processes that serve.

configuration  settings (what it is), reader (of TOML), linkis (of linkis.properties), rules
               (allowed values), writer (to TOML), checks (keys and the machine)
supervisor     supervisor, generation, processes, forking, listeners, records
worker         worker, answers, assembly, upstreams, health, notices, notes
between them   given (at the fork), control (commands), slot (counters, notes), handover (clients)
operators      admin, snapshot, metrics, errorlog, logfile, systemd
"""
