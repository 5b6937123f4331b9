#!lua flags=allow-oom
-- Write down the settings that are longer than the stored ones.
--
-- KEYS  ft:meta
-- ARGV  name and value of each setting
-- ->    the values stored before, in this order; false: there was none
local before = {}
for at = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[at])
  if not known or tonumber(known) < tonumber(ARGV[at + 1]) then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
  before[#before + 1] = known
end
return before
