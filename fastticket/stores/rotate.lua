#!lua
-- A session goes on under another id. Done twice, it is the same as done once.
--
-- ARGV  shard, principal, session id, its successor's id, idle deadline, record without details
-- ->    1; 0: there was no such session
local shard, principal, id, successor = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local deadline_ms, record = ARGV[5], ARGV[6]
local user = user_of(principal)
if redis.call('ZSCORE', LIVE, successor .. '.' .. principal) then
  return 1
end
if redis.call('ZREM', LIVE, id .. '.' .. principal) == 0 then
  return 0
end
local before = redis.call('HGET', user, id) or record
redis.call('HDEL', user, id)
redis.call('HSET', user, successor, record .. string.sub(before, #record + 1))
redis.call('ZADD', LIVE, deadline_ms, successor .. '.' .. principal)
if redis.call('EXISTS', attributes_of(id)) == 1 then
  redis.call('RENAME', attributes_of(id), attributes_of(successor))
  redis.call('PEXPIREAT', attributes_of(successor), string.format('%.0f', absolute_deadline_ms(record)))
end
ring(shard, append('rotated', id, principal, 'to', successor))
return 1
