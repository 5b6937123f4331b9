#!lua flags=allow-oom
-- Write down of the fleet's settings what is longer than what was written down.
--
-- KEYS  ft:meta
-- ARGV  name and value of each
-- ->    what was written down before, in their order; false: nothing
local before = {}
for at = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[at])
  if not known or tonumber(known) < tonumber(ARGV[at + 1]) then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
  before[#before + 1] = known
end
return before
