#!lua flags=allow-oom
-- Remove sessions that are past their idle deadline, and log that they have expired.
--
-- KEYS  live, log
-- ARGV  shard, latest deadline to remove, how many at most
-- ->    how many it removed
local before_ms = math.min(tonumber(ARGV[2]), now_ms())
local dead = redis.call(
  'ZRANGE', LIVE, '-inf', string.format('%.0f', before_ms), 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES'
)
local entry
for at = 1, #dead, 2 do
  local id, principal = string.sub(dead[at], 1, 22), string.sub(dead[at], 24)
  entry = finish('expired', id, principal, expiry_of(id, principal, tonumber(dead[at + 1])))
end
if entry then
  ring(ARGV[1], entry) -- followers of the events look at the log now
end
return #dead / 2
