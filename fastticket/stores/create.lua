#!lua
-- Add a session. Done twice, it is the same as done once.
--
-- KEYS  live, user, log
-- ARGV  session id, principal, idle deadline, absolute deadline, entries that the log keeps
local member = ARGV[1] .. '.' .. ARGV[2]
if redis.call('ZADD', KEYS[1], 'NX', ARGV[3], member) == 1 then
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'created', member)
end
return 1
