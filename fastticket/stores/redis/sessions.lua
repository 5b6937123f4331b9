#!lua flags=allow-oom
-- The live sessions of one principal.
--
-- KEYS  live, log, user
-- ARGV  principal
-- ->    id, idle deadline and record of each
local principal, at_ms = ARGV[1], now_ms()
local listed = redis.call('HGETALL', user_of(principal))
local found = {}
for at = 1, #listed, 2 do
  local deadline_ms = redis.call('ZSCORE', LIVE, listed[at] .. '.' .. principal)
  if deadline_ms and tonumber(deadline_ms) > at_ms then
    found[#found + 1] = listed[at]
    found[#found + 1] = deadline_ms
    found[#found + 1] = listed[at + 1]
  end
end
return found
