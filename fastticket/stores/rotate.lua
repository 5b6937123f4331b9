#!lua
-- A session goes on under another id. Done twice, it is the same as done once.
--
-- KEYS  live, log, user, attributes, the successor's attributes
-- ARGV  shard, principal, session id, its successor's id, idle deadline, record without details
-- ->    1; 0: there was no such session
local shard, principal, id, successor = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local deadline_ms, record = ARGV[5], ARGV[6]
local user = user_of(principal)
if redis.call('ZSCORE', LIVE, successor .. '.' .. principal) then
  redis.call('ZADD', LIVE, 'XX', 'GT', deadline_ms, successor .. '.' .. principal) -- for WAIT, as revoke.lua says
  return 1
end
if not redis.call('ZSCORE', LIVE, id .. '.' .. principal) then
  return 0
end
local before = redis.call('HGET', user, id) or record
if redis.call('EXISTS', attributes_of(id)) == 1 then
  redis.call('RENAME', attributes_of(id), attributes_of(successor))
  redis.call('PEXPIREAT', attributes_of(successor), string.format('%.0f', absolute_deadline_ms(record)))
end
redis.call('ZREM', LIVE, id .. '.' .. principal)
redis.call('ZADD', LIVE, deadline_ms, successor .. '.' .. principal)
redis.call('HDEL', user, id)
redis.call('HSET', user, successor, record .. string.sub(before, #record + 1))
ring(shard, append('rotated', id, principal, 'to', successor))
return 1
