#!lua flags=allow-oom
-- End sessions of one principal: those named, or all. A revocation must be possible when memory is short.
--
-- KEYS  live, user, log
-- ARGV  principal, shard, entries that the log keeps, then session ids (none: all of the principal's)
-- ->    ids of the sessions that ended
local ids = {}
if #ARGV > 3 then
  for at = 4, #ARGV do
    ids[#ids + 1] = ARGV[at]
  end
else
  ids = redis.call('ZRANGE', KEYS[2], 0, -1)
end

local ended, entry = {}, nil
for _, id in ipairs(ids) do
  local member = id .. '.' .. ARGV[1]
  redis.call('ZREM', KEYS[2], id)
  if redis.call('ZREM', KEYS[1], member) == 1 then
    entry = redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'revoked', member)
    ended[#ended + 1] = id
  end
end
if entry then
  redis.call('PUBLISH', 'ft:doorbell', ARGV[2] .. ' ' .. entry)
else
  -- WAIT is about this connection's own last write, so there must be one: an earlier try, by whomever, may not have reached a replica.
  redis.call('ZADD', KEYS[1], 0, '')
  redis.call('ZREM', KEYS[1], '')
end
return ended
