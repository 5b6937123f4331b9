#!lua flags=allow-oom
-- The live sessions of one principal.
--
-- KEYS  live, user
-- ARGV  principal
-- ->    id, idle deadline, absolute deadline, of one after the other
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local listed = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
local found = {}
for at = 1, #listed, 2 do
  local idle_deadline = redis.call('ZSCORE', KEYS[1], listed[at] .. '.' .. ARGV[1])
  if idle_deadline and tonumber(idle_deadline) > now_ms then
    found[#found + 1] = listed[at]
    found[#found + 1] = idle_deadline
    found[#found + 1] = listed[at + 1]
  end
end
return found
