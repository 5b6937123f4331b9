#!lua
-- Set and remove some attributes of a session, and leave the others.
--
-- ARGV  session id, principal, bytes of names and values at most, how many are removed, these names, then name and value of each other
-- ->    the version, the one before; or how many bytes it would be, and nothing is written; false: no such session
local id, principal, bytes_max, removed = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local key = attributes_of(id)
if not redis.call('ZSCORE', LIVE, id .. '.' .. principal) then
  return false
end

local sizes, bytes = {}, 0
local held = redis.call('HGETALL', key)
for at = 1, #held, 2 do
  sizes[held[at]] = #held[at] + #held[at + 1]
end
local before = sizes[''] and redis.call('HGET', key, '') or '0-0'
sizes[''] = nil
for at = 5, 4 + removed do
  sizes[ARGV[at]] = nil
end
for at = 5 + removed, #ARGV, 2 do
  sizes[ARGV[at]] = #ARGV[at] + #ARGV[at + 1]
end
for _, size in pairs(sizes) do
  bytes = bytes + size
end
if bytes > bytes_max then
  return bytes
end

for at = 5, 4 + removed do
  redis.call('HDEL', key, ARGV[at])
end
local version = append('changed', id, principal)
redis.call('HSET', key, '', version)
for at = 5 + removed, #ARGV, 2 do
  redis.call('HSET', key, ARGV[at], ARGV[at + 1])
end
if before == '0-0' then
  local record = redis.call('HGET', user_of(principal), id)
  if record then
    redis.call('PEXPIREAT', key, string.format('%.0f', absolute_deadline_ms(record)))
  end
end
return {version, before}
