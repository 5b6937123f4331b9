#!lua flags=allow-oom
-- Note that a shard has lost data, and how long ago a gateway last heard what was there before.
--
-- KEYS  live, log
-- ARGV  that span, ms
-- ->    { how long ago this was first noted, the shortest of all gateways' spans up to now }, ms
local KEPT_MS = 600000 -- longer than sessions are given back (GIVE_BACK_WITHIN_MS, coherence.py)
local ANOTHER_MS = 60000 -- longer than a gateway's word is under way
local lost, now, heard_ms = TAG .. 'lost', now_ms(), now_ms() - tonumber(ARGV[1])

local function noted(name)
  return tonumber(redis.call('HGET', lost, name) or 0)
end

local function note(name, at_ms)
  redis.call('HSET', lost, name, string.format('%.0f', at_ms))
end

if heard_ms > noted('at') + ANOTHER_MS then -- none was noted, or this gateway has heard the shard since: it is another loss
  note('at', now)
  redis.call('PEXPIREAT', lost, string.format('%.0f', now + KEPT_MS))
end
if heard_ms > noted('heard') then
  note('heard', heard_ms)
end
return {now - noted('at'), now - noted('heard')}
