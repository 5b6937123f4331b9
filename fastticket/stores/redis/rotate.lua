#!lua
-- Give a session another id. Doing it twice is doing it once.
--
-- KEYS  live, log, user, attributes, the successor's attributes
-- ARGV  shard, principal, session id, its successor's id, idle deadline, record without details
-- ->    1; 0: there was no such session
local shard, principal, id, successor = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local deadline_ms, record = ARGV[5], ARGV[6]
if redis.call('ZSCORE', LIVE, successor .. '.' .. principal) then
  -- Done already. Written all the same: WAIT waits for this connection's own last write.
  redis.call('ZADD', LIVE, 'XX', 'GT', deadline_ms, successor .. '.' .. principal)
  return 1
end
if is_barred(successor, principal) or not redis.call('ZSCORE', LIVE, id .. '.' .. principal) then
  return 0
end
move(shard, id, principal, successor, deadline_ms, record)
bar({mark_of(id, principal)}, now_ms())
return 1
