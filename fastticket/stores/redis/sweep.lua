#!lua flags=allow-oom
-- Remove sessions that are dead, and log that they expired.
--
-- KEYS  live, log
-- ARGV  shard, remove what was dead at or before this time, at most so many
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
  ring(ARGV[1], entry) -- whoever follows the events hears of it now
end
return #dead / 2
