#!lua flags=allow-oom
-- Remove sessions that are long dead, and log that they expired.
--
-- KEYS  live, log
-- ARGV  remove what was dead at or before this time, at most so many, the user keys' common beginning, entries that the log keeps
-- ->    how many it removed
--
-- The user keys are computed: they have the same hash tag, so they are in this slot.
local now = redis.call('TIME')
local before = math.min(tonumber(ARGV[1]), now[1] * 1000 + math.floor(now[2] / 1000))
local dead = redis.call('ZRANGE', KEYS[1], '-inf', string.format('%.0f', before), 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, member in ipairs(dead) do
  local id, principal = string.sub(member, 1, 22), string.sub(member, 24)
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZREM', ARGV[3] .. principal, id)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'expired', member)
end
return #dead
