#!lua flags=allow-oom
-- End sessions of one principal: those named, or all but one. A revocation must be possible when memory is short.
--
-- KEYS  live, log, user
-- ARGV  shard, principal, reason, id of the session to keep (empty: none), then session ids (none: all of the principal's)
-- ->    ids of the sessions that ended
local shard, principal, reason, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ids = {}
for at = 5, #ARGV do
  ids[#ids + 1] = ARGV[at]
end
if #ids == 0 then
  ids = redis.call('HKEYS', user_of(principal))
end

local ended, entry = {}, nil
for _, id in ipairs(ids) do
  local ending = id ~= kept and finish('revoked', id, principal, reason)
  if ending then
    entry = ending
    ended[#ended + 1] = id
  end
end
if entry then
  ring(shard, entry)
else
  -- WAIT is about this connection's own last write, so there must be one: an earlier try, by whomever, may not have reached a replica.
  redis.call('ZADD', LIVE, 0, '')
  redis.call('ZREM', LIVE, '')
end
return ended
