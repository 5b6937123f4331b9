#!lua
-- Set and remove some attributes of a session, and leave the others.
--
-- KEYS  live, log, user, attributes
-- ARGV  shard, session id, principal, limit of names and values in bytes,
--       how many are removed, these names, then names and values to set
-- ->    { the new version, the one before }; or a number, and nothing is written: the bytes that
--       there would be; false: no such session
--
-- The field without a name has the version, and the size of the others in bytes:
-- '1763740000000-0 1234'.
local shard, id, principal, bytes_max, removed = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local key = attributes_of(id)
if not redis.call('ZSCORE', LIVE, id .. '.' .. principal) then
  return false
end

local before, held = string.match(redis.call('HGET', key, '') or '0-0 0', '^(%S+) (%d+)$')
local bytes = tonumber(held)
local function size_of(name)
  local value = redis.call('HGET', key, name)
  return value and #name + #value or 0
end
for at = 6, 5 + removed do
  bytes = bytes - size_of(ARGV[at])
end
for at = 6 + removed, #ARGV, 2 do
  bytes = bytes - size_of(ARGV[at]) + #ARGV[at] + #ARGV[at + 1]
end
if bytes > bytes_max and bytes > tonumber(held) then -- removing is allowed above a lowered limit
  return bytes
end

for at = 6, 5 + removed do
  redis.call('HDEL', key, ARGV[at])
end
for at = 6 + removed, #ARGV, 2 do
  redis.call('HSET', key, ARGV[at], ARGV[at + 1])
end
local version = append('changed', id, principal)
redis.call('HSET', key, '', version .. ' ' .. string.format('%d', bytes))
ring(shard, version, id)
if before == '0-0' then
  local record = redis.call('HGET', user_of(principal), id)
  if record then
    redis.call('PEXPIREAT', key, string.format('%.0f', absolute_deadline_ms(record)))
  end
end
return {version, before}
